locals {
  # AWS prescribes the names of some groups.
  log_groups = {
    api      = "/${var.name}/api"
    worker   = "/${var.name}/worker"
    migrate  = "/${var.name}/migrate"
    flower   = "/${var.name}/flower"
    flow     = "/${var.name}/flow"
    cache    = "/${var.name}/cache"
    waf      = "aws-waf-logs-${var.name}"
    insights = "/aws/ecs/containerinsights/${var.name}/performance"
    database = "/aws/rds/instance/${var.name}/postgresql"
    upgrade  = "/aws/rds/instance/${var.name}/upgrade"
  }
}

resource "aws_cloudwatch_log_group" "this" {
  for_each          = local.log_groups
  name              = each.value
  retention_in_days = var.log_retention_days
  kms_key_id        = aws_kms_key.logs.arn
}
