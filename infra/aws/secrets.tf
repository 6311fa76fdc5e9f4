# Secrets are made here, written into Secrets Manager and into what they open, and read by tasks as they start.
# What is ephemeral stands in no plan and no state. If an apply ends between the two writes, raise secrets_version.

locals {
  generated = {
    DATABASE_URL = join("", [
      "postgresql://${local.database_user}:${ephemeral.random_password.database.result}",
      "@${aws_db_instance.this.endpoint}/${local.database_name}?sslmode=require",
    ])
    REDIS_URL = local.redis_url
    # Flower runs without the application's settings, which have Celery ask for a certificate.
    CELERY_BROKER_URL = "${local.redis_url}?ssl_cert_reqs=required"
    JWT_SECRET_KEY    = ephemeral.random_password.jwt.result
    FLOWER_BASIC_AUTH = "admin:${ephemeral.random_password.flower.result}"
    METRICS_TOKEN     = ephemeral.random_password.metrics.result
  }

  redis_url = "rediss://:${random_password.cache.result}@${aws_elasticache_replication_group.this.primary_endpoint_address}:${local.cache_port}/0"

  generated_names = toset(["DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL", "JWT_SECRET_KEY", "FLOWER_BASIC_AUTH", "METRICS_TOKEN"])

  secret_arns = { for name, secret in aws_secretsmanager_secret.this : name => secret.arn }
}

# Without special characters they can stand in URLs.
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

# ElastiCache's token cannot be only written: this one stands in the state, which is encrypted.
resource "random_password" "cache" {
  length  = 64
  special = false
  keepers = { version = var.secrets_version }
}

resource "aws_secretsmanager_secret" "this" {
  #checkov:skip=CKV2_AWS_57: they change by secrets_version, together with what they open; see aws.md
  # Beside ours, those that somebody puts in by hand.
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
