# --- Where and under what name ---

variable "region" {
  description = "The AWS region of everything."
  type        = string
}

variable "name" {
  description = "The beginning of all names. The images' repositories are NAME-api and NAME-worker."
  type        = string
  default     = "promptwire"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,18}[a-z0-9]$", var.name))
    error_message = "Use 3 to 20 lower-case letters, digits and hyphens: load balancers have short names."
  }
}

variable "domain_name" {
  description = "The host name of the API, such as api.example.com. It must lie in the zone."
  type        = string
}

variable "zone_id" {
  description = "The public Route 53 zone in which the name and its certificate's proof are written."
  type        = string
}

variable "github_repository" {
  description = "OWNER/REPOSITORY whose main branch may push images and deploy. Empty: none may."
  type        = string
  default     = ""

  validation {
    condition     = var.github_repository == "" || can(regex("^[\\w.-]+/[\\w.-]+$", var.github_repository))
    error_message = "Write OWNER/REPOSITORY, without wildcards."
  }
}

variable "github_oidc_provider_arn" {
  description = "GitHub's identity provider, if the account has it already (it can have only one). Empty: it is made."
  type        = string
  default     = ""
}

# --- Network ---

variable "vpc_cidr" {
  description = "The addresses of the VPC, a /16."
  type        = string
  default     = "10.40.0.0/16"

  validation {
    condition     = can(cidrhost(var.vpc_cidr, 0)) && endswith(var.vpc_cidr, "/16")
    error_message = "Give a /16, such as 10.40.0.0/16."
  }
}

variable "zones" {
  description = "The availability zones over which to spread. Their order gives the subnets' addresses: only append."
  type        = list(string)

  validation {
    condition     = length(distinct(var.zones)) == length(var.zones) && length(var.zones) >= 2 && length(var.zones) <= 8
    error_message = "Between 2 (PostgreSQL and Valkey have a standby) and 8, all different."
  }
}

variable "single_nat_gateway" {
  description = "One NAT gateway for all zones: cheaper, but tasks reach no model while its zone is away."
  type        = bool
  default     = false
}

variable "interface_endpoints" {
  description = "Reach ECR, Secrets Manager and CloudWatch within the VPC, so that tasks start without a way out."
  type        = bool
  default     = false
}

variable "egress_ports" {
  description = "TCP ports on which tasks may reach other hosts: 443 for AWS and a model, and those of models elsewhere."
  type        = set(number)
  default     = [443]
}

variable "flower_cidrs" {
  description = "Who may reach Flower: addresses of a VPN or bastion. Empty: nobody. It has no public address anyway."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.flower_cidrs : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "Give CIDR blocks, and not the whole internet."
  }
}

variable "waf" {
  description = "Filter requests by address reputation, rate and known bad input before the load balancer."
  type        = bool
  default     = true
}

variable "requests_per_address" {
  description = "Requests that an address may make in five minutes before the WAF refuses it (many people may share one)."
  type        = number
  default     = 10000
}

# --- The application ---

variable "image_tag" {
  description = "The images' tag in the task definitions that Terraform writes. `infra/aws/deploy.sh TAG` moves on from there."
  type        = string

  validation {
    condition     = var.image_tag != "latest"
    error_message = "Tags are immutable: give the commit's SHA."
  }
}

variable "cpu_architecture" {
  description = "What the images are built for: X86_64 or ARM64."
  type        = string
  default     = "X86_64"

  validation {
    condition     = contains(["X86_64", "ARM64"], var.cpu_architecture)
    error_message = "X86_64 or ARM64."
  }
}

variable "allowed_origins" {
  description = "ALLOWED_ORIGINS: pages of other hosts that may use the API and open sockets."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for origin in var.allowed_origins : startswith(origin, "https://")])
    error_message = "Give origins such as https://app.example.com, and no wildcards."
  }
}

variable "settings" {
  description = "Further settings of the application, as in docs/settings.md: { GENERATOR = \"openai\" }. No secrets."
  type        = map(string)
  default     = {}

  validation {
    condition = length(setintersection(keys(var.settings), [
      "DATABASE_URL", "REDIS_URL", "JWT_SECRET_KEY", "METRICS_TOKEN", "CELERY_BROKER_URL", "FLOWER_BASIC_AUTH",
      "OPENAI_API_KEY", "OPENAI_EMBEDDING_API_KEY",
    ])) == 0
    error_message = "Secrets come from Secrets Manager only: see provider_keys."
  }
}

variable "provider_keys" {
  description = "Which keys of model providers there are. Their values are put into Secrets Manager by hand (see aws.md)."
  type        = set(string)
  default     = []

  validation {
    condition     = length(setsubtract(var.provider_keys, ["OPENAI_API_KEY", "OPENAI_EMBEDDING_API_KEY"])) == 0
    error_message = "OPENAI_API_KEY and OPENAI_EMBEDDING_API_KEY."
  }
}

variable "secrets_version" {
  description = "Raise it to make the passwords, the signing key and Flower's login anew."
  type        = number
  default     = 1
}

# --- Processes ---

variable "api" {
  description = "API tasks: CPU units (1024 = 1 vCPU), memory in MiB, gunicorn processes (one a vCPU), fewest and most tasks."
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
  description = "Worker tasks: CPU units, memory in MiB, prompts at once, fewest and most tasks, and how many percent of those above one run on Spot."
  type = object({
    cpu          = optional(number, 1024)
    memory       = optional(number, 8192)
    processes    = optional(number, 16)
    min          = optional(number, 2)
    max          = optional(number, 12)
    spot_percent = optional(number, 70)
  })
  default = {}
}

variable "queue_per_worker_task" {
  description = "Messages waiting for each worker task at which workers are added."
  type        = number
  default     = 20
}

variable "connections_per_api_task" {
  description = "Clients' connections, sockets above all, for each API task at which API tasks are added. A process admits 20,000."
  type        = number
  default     = 10000
}

# --- PostgreSQL and Valkey ---

variable "database" {
  description = "PostgreSQL: instance class, storage in GiB and how far it may grow by itself, days of backups."
  type = object({
    instance_class = optional(string, "db.m7g.large")
    storage        = optional(number, 100)
    max_storage    = optional(number, 1000)
    backup_days    = optional(number, 14)
  })
  default = {}

  validation {
    condition     = var.database.backup_days >= 7 && var.database.backup_days <= 35
    error_message = "Keep backups 7 to 35 days."
  }
}

variable "postgres_version" {
  description = "PostgreSQL's major version."
  type        = string
  default     = "18"
}

variable "cache" {
  description = "Valkey: node type, and nodes (one primary, the others in other zones to take over)."
  type = object({
    node_type = optional(string, "cache.t4g.medium")
    nodes     = optional(number, 2)
  })
  default = {}

  validation {
    condition     = var.cache.nodes >= 2
    error_message = "At least 2, so that one can take over."
  }
}

variable "deletion_protection" {
  description = "Refuse to delete the database and the load balancer. Set it to false, apply, and only then destroy."
  type        = bool
  default     = true
}

# --- Who is told, and when ---

variable "alarm_emails" {
  description = "Who gets the alarms; each has to confirm once."
  type        = set(string)
  default     = []
}

variable "log_retention_days" {
  description = "How long logs are kept."
  type        = number
  default     = 365
}

variable "alarms" {
  description = "Where alarms begin: seconds (median of requests; age of the oldest queued prompt), percent, messages, GiB."
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
