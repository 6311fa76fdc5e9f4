resource "aws_ecs_cluster" "this" {
  name = var.name

  # Also counts the running tasks, which autoscaling needs.
  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

resource "aws_ecs_cluster_capacity_providers" "this" {
  cluster_name       = aws_ecs_cluster.this.name
  capacity_providers = ["FARGATE", "FARGATE_SPOT"]
}

locals {
  # AWS can stop Spot tasks with two minutes' notice. A worker then releases its prompts to other workers, but an API
  # would lose its WebSockets, so only workers run on Spot.
  spot_percent = { api = 0, worker = var.worker.spot_percent, flower = 0 }
}

resource "aws_ecs_service" "this" {
  #checkov:skip=CKV_AWS_332: LATEST is the default
  for_each        = { api = var.api.min, worker = var.worker.min, flower = 1 }
  name            = each.key
  cluster         = aws_ecs_cluster.this.id
  task_definition = aws_ecs_task_definition.this[each.key].arn
  desired_count   = each.value

  enable_execute_command        = false
  availability_zone_rebalancing = "ENABLED"
  propagate_tags                = "SERVICE"
  enable_ecs_managed_tags       = true

  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200
  health_check_grace_period_seconds  = each.key == "api" ? 90 : null

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  capacity_provider_strategy {
    capacity_provider = "FARGATE"
    base              = 1
    weight            = 100 - local.spot_percent[each.key]
  }

  dynamic "capacity_provider_strategy" {
    for_each = local.spot_percent[each.key] > 0 ? [local.spot_percent[each.key]] : []

    content {
      capacity_provider = "FARGATE_SPOT"
      weight            = capacity_provider_strategy.value
    }
  }

  network_configuration {
    subnets          = [for subnet in aws_subnet.private : subnet.id]
    security_groups  = [local.groups[each.key]]
    assign_public_ip = false
  }

  dynamic "load_balancer" {
    for_each = each.key == "api" ? [aws_lb_target_group.api.arn] : []

    content {
      target_group_arn = load_balancer.value
      container_name   = each.key
      container_port   = local.api_port
    }
  }

  dynamic "service_registries" {
    for_each = each.key == "flower" ? [aws_service_discovery_service.flower.arn] : []

    content {
      registry_arn = service_registries.value
    }
  }

  lifecycle {
    # infra/aws/deploy.sh changes the first, autoscaling the second.
    ignore_changes = [task_definition, desired_count]
  }

  depends_on = [
    aws_lb_listener.https,
    aws_ecs_cluster_capacity_providers.this,
    aws_secretsmanager_secret_version.generated,
    aws_vpc_security_group_egress_rule.services,
    aws_iam_role_policy.execution,
  ]
}

# Flower has a host name inside the VPC only.
resource "aws_service_discovery_private_dns_namespace" "this" {
  name = "${var.name}.internal"
  vpc  = aws_vpc.this.id
}

resource "aws_service_discovery_service" "flower" {
  name = "flower"

  dns_config {
    namespace_id = aws_service_discovery_private_dns_namespace.this.id

    dns_records {
      type = "A"
      ttl  = 10
    }
  }
}
