# --- Region, names and domain ---

variable "region" {
  description = "The AWS region."
  type        = string
}

variable "name" {
  description = "The prefix of all names. The image repositories are NAME-api and NAME-worker."
  type        = string
  default     = "promptwire"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,18}[a-z0-9]$", var.name))
    error_message = "Use 3 to 20 lower-case letters, digits and hyphens: load balancers have short names."
  }
}

variable "domain_name" {
  description = "The host name of the API, such as api.example.com. It must be in the zone."
  type        = string
}

variable "zone_id" {
  description = "The public Route 53 zone for the domain name and the validation of its certificate."
  type        = string
}

variable "github_repository" {
  description = "OWNER/REPOSITORY whose main branch may push images and deploy. Empty: none."
  type        = string
  default     = ""

  validation {
    condition     = var.github_repository == "" || can(regex("^[\\w.-]+/[\\w.-]+$", var.github_repository))
    error_message = "Write OWNER/REPOSITORY, without wildcards."
  }
}

variable "github_oidc_provider_arn" {
  description = "GitHub's identity provider, if the account already has one (only one is possible). Empty: it is created."
  type        = string
  default     = ""
}

# --- Network ---

variable "vpc_cidr" {
  description = "The address range of the VPC, a /16."
  type        = string
  default     = "10.40.0.0/16"

  validation {
    condition     = can(cidrhost(var.vpc_cidr, 0)) && endswith(var.vpc_cidr, "/16")
    error_message = "Use a /16, such as 10.40.0.0/16."
  }
}

variable "zones" {
  description = "The availability zones to use. Their order determines the subnets' addresses, so only append."
  type        = list(string)

  validation {
    condition     = length(distinct(var.zones)) == length(var.zones) && length(var.zones) >= 2 && length(var.zones) <= 8
    error_message = "Use 2 to 8 different zones: PostgreSQL and Valkey have a standby in a second zone."
  }
}

variable "single_nat_gateway" {
  description = "One NAT gateway for all zones: cheaper, but tasks cannot reach model providers and webhooks while its zone is unavailable."
  type        = bool
  default     = false
}

variable "interface_endpoints" {
  description = "Reach ECR, Secrets Manager and CloudWatch inside the VPC, so that tasks can start without NAT."
  type        = bool
  default     = false
}

variable "egress_ports" {
  description = "TCP ports on which tasks may connect to other hosts: 443 for AWS, most providers and most webhooks, and the ports of others."
  type        = set(number)
  default     = [443]
}

variable "flower_cidrs" {
  description = "Addresses that may reach Flower, such as a VPN or bastion. Empty: none. Flower has no public address in any case."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.flower_cidrs : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "Use CIDR blocks other than the whole internet."
  }
}

variable "waf" {
  description = "Filter requests by address reputation, rate and known bad input with a WAF."
  type        = bool
  default     = true
}

variable "requests_per_address" {
  description = "Requests per address in five minutes, above which the WAF blocks the address (many users may share one)."
  type        = number
  default     = 10000
}

# --- The application ---

variable "image_tag" {
  description = "The images' tag in the task definitions that Terraform writes. `infra/aws/deploy.sh TAG` deploys other tags."
  type        = string

  validation {
    condition     = var.image_tag != "latest"
    error_message = "Tags are immutable: use the commit's SHA."
  }
}

variable "cpu_architecture" {
  description = "The architecture of the images: X86_64 or ARM64."
  type        = string
  default     = "X86_64"

  validation {
    condition     = contains(["X86_64", "ARM64"], var.cpu_architecture)
    error_message = "Use X86_64 or ARM64."
  }
}

variable "allowed_origins" {
  description = "ALLOWED_ORIGINS: origins of other pages that may use the API and open WebSockets."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for origin in var.allowed_origins : startswith(origin, "https://")])
    error_message = "Use origins such as https://app.example.com, without wildcards."
  }
}

variable "settings" {
  description = "More settings of the application, as in docs/settings.md: { GENERATOR = \"openai\" }. No secrets."
  type        = map(string)
  default     = {}

  validation {
    condition = length(setintersection(keys(var.settings), [
      "DATABASE_URL", "REDIS_URL", "JWT_SECRET_KEY", "METRICS_TOKEN", "FLOWER_PASSWORD",
      "OPENAI_API_KEY", "OPENAI_EMBEDDING_API_KEY",
    ])) == 0
    error_message = "Secrets come from Secrets Manager only: see provider_keys."
  }
}

variable "provider_keys" {
  description = "The names of the model providers' keys. Enter their values in Secrets Manager by hand (see docs/aws.md)."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for name in var.provider_keys : can(regex("^[A-Z][A-Z0-9_]*_API_KEY$", name))])
    error_message = "Use OPENAI_API_KEY, OPENAI_EMBEDDING_API_KEY, and the api_key_env of models if they end in _API_KEY."
  }
}

variable "secrets_version" {
  description = "Raise it to generate new passwords, a new signing key and a new Flower login."
  type        = number
  default     = 1
}

# --- Processes ---

variable "api" {
  description = "API tasks: CPU units (1024 = 1 vCPU), memory in MiB, gunicorn processes (one per vCPU), minimum and maximum number of tasks."
  type = object({
    cpu       = optional(number, 1024)
    memory    = optional(number, 2048)
    processes = optional(number, 1)
    min       = optional(number, 2)
    max       = optional(number, 10)
  })
  default = {}
}

variable "worker" {
  description = "Worker tasks: CPU units, memory in MiB, threads (prompts at a time with a remote model), processes (with any other generator), minimum and maximum number of tasks, and the percentage on Spot of all but the first."
  type = object({
    cpu          = optional(number, 1024)
    memory       = optional(number, 2048)
    threads      = optional(number, 200)
    processes    = optional(number, 2)
    min          = optional(number, 2)
    max          = optional(number, 12)
    spot_percent = optional(number, 70)
  })
  default = {}
}

variable "queue_per_worker_task" {
  description = "Queued prompts per worker task, above which tasks are added."
  type        = number
  default     = 20
}

variable "connections_per_api_task" {
  description = "Client connections (mostly WebSockets) per API task, above which tasks are added. A process accepts 20,000."
  type        = number
  default     = 10000
}

# --- PostgreSQL and Valkey ---

variable "database" {
  description = "PostgreSQL: instance class, storage in GiB and its automatic maximum, days of backups."
  type = object({
    instance_class = optional(string, "db.m7g.large")
    storage        = optional(number, 100)
    max_storage    = optional(number, 1000)
    backup_days    = optional(number, 14)
  })
  default = {}

  validation {
    condition     = var.database.backup_days >= 7 && var.database.backup_days <= 35
    error_message = "Keep backups for 7 to 35 days."
  }
}

variable "postgres_version" {
  description = "PostgreSQL's major version."
  type        = string
  default     = "18"
}

variable "cache" {
  description = "Valkey: node type and number of nodes (one primary, and replicas in other zones for failover)."
  type = object({
    node_type = optional(string, "cache.t4g.medium")
    nodes     = optional(number, 2)
  })
  default = {}

  validation {
    condition     = var.cache.nodes >= 2
    error_message = "Use at least 2 nodes, so that one can take over."
  }
}

variable "deletion_protection" {
  description = "Refuse to delete the database and the load balancer. Set it to false, apply, and only then destroy."
  type        = bool
  default     = true
}

# --- Alarms and logs ---

variable "alarm_emails" {
  description = "E-mail addresses for alarms. Each recipient has to confirm once."
  type        = set(string)
  default     = []
}

variable "log_retention_days" {
  description = "Days for which logs are kept."
  type        = number
  default     = 365
}

variable "alarms" {
  description = "Alarm thresholds: seconds (median of requests; age of the oldest queued prompt), percent, prompts, GiB."
  type = object({
    latency_seconds       = optional(number, 1)
    oldest_queued_seconds = optional(number, 120)
    queue_depth           = optional(number, 2000)
    error_percent         = optional(number, 2)
    cpu_percent           = optional(number, 85)
    memory_percent        = optional(number, 90)
    database_free_gib     = optional(number, 20)
    database_connections  = optional(number, 700)
    cache_memory_percent  = optional(number, 60)
  })
  default = {}
}
