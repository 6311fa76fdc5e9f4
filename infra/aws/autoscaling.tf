# Target tracking adds tasks when any policy asks for more, and removes tasks when all policies allow it.

locals {
  scaled = {
    api    = { min = var.api.min, max = var.api.max, cpu = 60 }
    worker = { min = var.worker.min, max = var.worker.max, cpu = 70 }
  }

  # The target for each task: a metric divided by the number of running tasks.
  load_per_task = {
    api = {
      name       = "connections"
      target     = var.connections_per_api_task
      namespace  = "AWS/ApplicationELB"
      metric     = "ActiveConnectionCount"
      stat       = "Sum"
      dimensions = { LoadBalancer = aws_lb.this.arn_suffix }
      # The metric counts each client connection twice: from the client, and on to the task.
      expression = "total / 2 / tasks"
    }
    worker = {
      name       = "queue"
      target     = var.queue_per_worker_task
      namespace  = var.name
      metric     = "promptwire_queue_depth"
      stat       = "Maximum"
      dimensions = {}
      expression = "total / tasks"
    }
  }
}

resource "aws_appautoscaling_target" "this" {
  for_each           = local.scaled
  service_namespace  = "ecs"
  resource_id        = "service/${aws_ecs_cluster.this.name}/${aws_ecs_service.this[each.key].name}"
  scalable_dimension = "ecs:service:DesiredCount"
  min_capacity       = each.value.min
  max_capacity       = each.value.max
}

resource "aws_appautoscaling_policy" "cpu" {
  for_each           = local.scaled
  name               = "${var.name}-${each.key}-cpu"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.this[each.key].service_namespace
  resource_id        = aws_appautoscaling_target.this[each.key].resource_id
  scalable_dimension = aws_appautoscaling_target.this[each.key].scalable_dimension

  target_tracking_scaling_policy_configuration {
    target_value       = each.value.cpu
    scale_out_cooldown = 60
    scale_in_cooldown  = 300

    predefined_metric_specification {
      predefined_metric_type = "ECSServiceAverageCPUUtilization"
    }
  }
}

resource "aws_appautoscaling_policy" "share" {
  for_each           = local.load_per_task
  name               = "${var.name}-${each.key}-${each.value.name}"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.this[each.key].service_namespace
  resource_id        = aws_appautoscaling_target.this[each.key].resource_id
  scalable_dimension = aws_appautoscaling_target.this[each.key].scalable_dimension

  target_tracking_scaling_policy_configuration {
    target_value       = each.value.target
    scale_out_cooldown = 60
    scale_in_cooldown  = 300

    customized_metric_specification {
      metrics {
        id          = "share"
        expression  = each.value.expression
        return_data = true
      }

      metrics {
        id          = "total"
        return_data = false

        metric_stat {
          stat = each.value.stat

          metric {
            namespace   = each.value.namespace
            metric_name = each.value.metric

            dynamic "dimensions" {
              for_each = each.value.dimensions

              content {
                name  = dimensions.key
                value = dimensions.value
              }
            }
          }
        }
      }

      metrics {
        id          = "tasks"
        return_data = false

        metric_stat {
          stat = "Average"

          metric {
            namespace   = "ECS/ContainerInsights"
            metric_name = "RunningTaskCount"

            dimensions {
              name  = "ClusterName"
              value = aws_ecs_cluster.this.name
            }

            dimensions {
              name  = "ServiceName"
              value = each.key
            }
          }
        }
      }
    }
  }
}
