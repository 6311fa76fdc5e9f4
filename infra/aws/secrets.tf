# Secrets are generated here and written to Secrets Manager and to the services that use them; tasks read them at start.
# Ephemeral values appear in no plan and no state. If an apply ends between the two writes, raise secrets_version.

locals {
  generated = {
    DATABASE_URL = join("", [
      "postgresql://${local.database_user}:${ephemeral.random_password.database.result}",
      "@${aws_db_instance.this.endpoint}/${local.database_name}?sslmode=require",
    ])
    REDIS_URL       = local.redis_url
    JWT_SECRET_KEY  = ephemeral.random_password.jwt.result
    FLOWER_PASSWORD = ephemeral.random_password.flower.result
    METRICS_TOKEN   = ephemeral.random_password.metrics.result
  }

  redis_url = "rediss://:${random_password.cache.result}@${aws_elasticache_replication_group.this.primary_endpoint_address}:${local.cache_port}/0"

  generated_names = toset(["DATABASE_URL", "REDIS_URL", "JWT_SECRET_KEY", "FLOWER_PASSWORD", "METRICS_TOKEN"])

  secret_arns = { for name, secret in aws_secretsmanager_secret.this : name => secret.arn }
}

# No special characters, so that they can be part of a URL.
ephemeral "random_password" "database" {
  length  = 48
  special = false
}

ephemeral "random_password" "jwt" {
  length  = 64
  special = false
}

ephemeral "random_password" "flower" {
  length  = 32
  special = false
}

ephemeral "random_password" "metrics" {
  length  = 48
  special = false
}

# ElastiCache has no write-only token, so this one is in the state, which is encrypted.
resource "random_password" "cache" {
  length  = 64
  special = false
  keepers = { version = var.secrets_version }
}

resource "aws_secretsmanager_secret" "this" {
  #checkov:skip=CKV2_AWS_57: secrets_version rotates them together with the services that use them; see docs/aws.md
  # The generated secrets, and those that are entered by hand.
  for_each                = setunion(local.generated_names, var.provider_keys)
  name                    = "${var.name}/${each.key}"
  description             = "${each.key} of ${var.name}"
  kms_key_id              = aws_kms_key.data.arn
  recovery_window_in_days = 30
}

resource "aws_secretsmanager_secret_version" "generated" {
  for_each                 = local.generated_names
  secret_id                = aws_secretsmanager_secret.this[each.key].id
  secret_string_wo         = local.generated[each.key]
  secret_string_wo_version = var.secrets_version
}
