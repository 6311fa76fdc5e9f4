# Everyone in alarm_emails gets an e-mail when an alarm starts and when it ends.

resource "aws_sns_topic" "alarms" {
  name              = "${var.name}-alarms"
  kms_master_key_id = aws_kms_key.logs.id
}

resource "aws_sns_topic_subscription" "email" {
  for_each  = var.alarm_emails
  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.key
}

locals {
  lb_dimensions       = { LoadBalancer = aws_lb.this.arn_suffix }
  target_dimensions   = { LoadBalancer = aws_lb.this.arn_suffix, TargetGroup = aws_lb_target_group.api.arn_suffix }
  database_dimensions = { DBInstanceIdentifier = aws_db_instance.this.identifier }
  cache_members       = [for number in range(1, var.cache.nodes + 1) : format("%s-%03d", var.name, number)]

  # Each alarm: the metric, the statistic, the threshold, the consecutive minutes beyond it, and how missing data counts.
  plain_alarms = {
    "unhealthy-api" = {
      namespace  = "AWS/ApplicationELB", metric = "UnHealthyHostCount", stat = "Maximum"
      dimensions = local.target_dimensions, above = 0, minutes = 5
    }
    "no-healthy-api" = {
      namespace  = "AWS/ApplicationELB", metric = "HealthyHostCount", stat = "Minimum"
      dimensions = local.target_dimensions, below = 1, minutes = 2, missing = "breaching"
    }
    "load-balancer-errors" = {
      namespace  = "AWS/ApplicationELB", metric = "HTTPCode_ELB_5XX_Count", stat = "Sum"
      dimensions = local.lb_dimensions, above = 10, minutes = 3
    }
    # The median, because requests with `Prefer: wait` are slow on purpose.
    "latency" = {
      namespace  = "AWS/ApplicationELB", metric = "TargetResponseTime", stat = "p50"
      dimensions = local.lb_dimensions, above = var.alarms.latency_seconds, minutes = 10
    }
    "queue-depth" = {
      namespace  = var.name, metric = "promptwire_queue_depth", stat = "Maximum"
      dimensions = {}, above = var.alarms.queue_depth, minutes = 10
    }
    # Missing data is an alarm too: then no API runs.
    "oldest-queued" = {
      namespace  = var.name, metric = "promptwire_oldest_queued_seconds", stat = "Maximum"
      dimensions = {}, above = var.alarms.oldest_queued_seconds, minutes = 5, missing = "breaching"
    }
    "database-cpu" = {
      namespace  = "AWS/RDS", metric = "CPUUtilization", stat = "Average"
      dimensions = local.database_dimensions, above = var.alarms.cpu_percent, minutes = 15
    }
    "database-storage" = {
      namespace  = "AWS/RDS", metric = "FreeStorageSpace", stat = "Minimum"
      dimensions = local.database_dimensions, below = var.alarms.database_free_gib * 1073741824, minutes = 5
    }
    "database-connections" = {
      namespace  = "AWS/RDS", metric = "DatabaseConnections", stat = "Maximum"
      dimensions = local.database_dimensions, above = var.alarms.database_connections, minutes = 5
    }
  }

  service_alarms = merge([for service in ["api", "worker"] : {
    "${service}-cpu" = {
      namespace  = "AWS/ECS", metric = "CPUUtilization", stat = "Average"
      dimensions = { ClusterName = aws_ecs_cluster.this.name, ServiceName = service }
      above      = var.alarms.cpu_percent, minutes = 15
    }
    "${service}-memory" = {
      namespace  = "AWS/ECS", metric = "MemoryUtilization", stat = "Maximum"
      dimensions = { ClusterName = aws_ecs_cluster.this.name, ServiceName = service }
      above      = var.alarms.memory_percent, minutes = 10
    }
    "${service}-tasks" = {
      namespace  = "ECS/ContainerInsights", metric = "RunningTaskCount", stat = "Maximum"
      dimensions = { ClusterName = aws_ecs_cluster.this.name, ServiceName = service }
      below      = local.scaled[service].min, minutes = 10, missing = "breaching"
    }
  }]...)

  cache_alarms = merge([for index, member in local.cache_members : {
    "cache-${index + 1}-memory" = {
      namespace  = "AWS/ElastiCache", metric = "DatabaseMemoryUsagePercentage", stat = "Maximum"
      dimensions = { CacheClusterId = member }, above = var.alarms.cache_memory_percent, minutes = 5
    }
    "cache-${index + 1}-evictions" = {
      namespace  = "AWS/ElastiCache", metric = "Evictions", stat = "Sum"
      dimensions = { CacheClusterId = member }, above = 0, minutes = 1
    }
    "cache-${index + 1}-cpu" = {
      namespace  = "AWS/ElastiCache", metric = "EngineCPUUtilization", stat = "Average"
      dimensions = { CacheClusterId = member }, above = var.alarms.cpu_percent, minutes = 10
    }
  }]...)
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each            = merge(local.plain_alarms, local.service_alarms, local.cache_alarms)
  alarm_name          = "${var.name}-${each.key}"
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = startswith(each.value.stat, "p") ? null : each.value.stat
  extended_statistic  = startswith(each.value.stat, "p") ? each.value.stat : null
  comparison_operator = can(each.value.above) ? "GreaterThanThreshold" : "LessThanThreshold"
  threshold           = try(each.value.above, each.value.below)
  period              = 60
  evaluation_periods  = each.value.minutes
  treat_missing_data  = try(each.value.missing, "notBreaching")
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

# These include 503 for overload. A tenth of a percent is normal, more is not.
resource "aws_cloudwatch_metric_alarm" "errors" {
  alarm_name          = "${var.name}-errors"
  alarm_description   = "Percentage of requests that the API answers with 5xx."
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.alarms.error_percent
  evaluation_periods  = 5
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]

  metric_query {
    id          = "percent"
    expression  = "100 * FILL(errors, 0) / requests"
    label       = "Errors, percent"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = { errors = "HTTPCode_Target_5XX_Count", requests = "RequestCount" }

    content {
      id = metric_query.key

      metric {
        namespace   = "AWS/ApplicationELB"
        metric_name = metric_query.value
        dimensions  = local.lb_dimensions
        stat        = "Sum"
        period      = 60
      }
    }
  }
}
