# Allowed traffic. Each flow is an egress rule of one group and an ingress rule of the other; all else is denied.

locals {
  groups = {
    alb      = aws_security_group.alb.id
    api      = aws_security_group.api.id
    worker   = aws_security_group.worker.id
    flower   = aws_security_group.flower.id
    database = aws_security_group.database.id
    cache    = aws_security_group.cache.id
  }

  flows = {
    alb-to-api         = { from = "alb", to = "api", port = local.api_port }
    api-to-database    = { from = "api", to = "database", port = local.database_port }
    api-to-cache       = { from = "api", to = "cache", port = local.cache_port }
    worker-to-database = { from = "worker", to = "database", port = local.database_port }
    worker-to-cache    = { from = "worker", to = "cache", port = local.cache_port }
    flower-to-cache    = { from = "flower", to = "cache", port = local.cache_port }
  }

  egress = {
    for pair in setproduct(["api", "worker", "flower"], var.egress_ports) : "${pair[0]}-${pair[1]}" => { from = pair[0], port = pair[1] }
  }
}

resource "aws_security_group" "alb" {
  name        = "${var.name}-alb"
  description = "The load balancer, the only group that is open to the internet."
  vpc_id      = aws_vpc.this.id
}

resource "aws_security_group" "api" {
  name        = "${var.name}-api"
  description = "API tasks."
  vpc_id      = aws_vpc.this.id
}

resource "aws_security_group" "worker" {
  name        = "${var.name}-worker"
  description = "Worker tasks and the migration task."
  vpc_id      = aws_vpc.this.id
}

resource "aws_security_group" "flower" {
  name        = "${var.name}-flower"
  description = "Flower."
  vpc_id      = aws_vpc.this.id
}

resource "aws_security_group" "database" {
  name        = "${var.name}-database"
  description = "PostgreSQL."
  vpc_id      = aws_vpc.this.id
}

resource "aws_security_group" "cache" {
  name        = "${var.name}-cache"
  description = "Valkey."
  vpc_id      = aws_vpc.this.id
}

resource "aws_security_group" "endpoints" {
  name        = "${var.name}-endpoints"
  description = "AWS services inside the VPC."
  vpc_id      = aws_vpc.this.id
}

resource "aws_vpc_security_group_egress_rule" "flow" {
  for_each                     = local.flows
  security_group_id            = local.groups[each.value.from]
  referenced_security_group_id = local.groups[each.value.to]
  description                  = each.key
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
}

resource "aws_vpc_security_group_ingress_rule" "flow" {
  for_each                     = local.flows
  security_group_id            = local.groups[each.value.to]
  referenced_security_group_id = local.groups[each.value.from]
  description                  = each.key
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
}

resource "aws_vpc_security_group_ingress_rule" "internet" {
  #checkov:skip=CKV_AWS_260: port 80 only redirects to 443
  for_each          = toset(["80", "443"])
  security_group_id = aws_security_group.alb.id
  description       = "Everyone, over HTTPS; HTTP is redirected."
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = tonumber(each.key)
  to_port           = tonumber(each.key)
}

resource "aws_vpc_security_group_ingress_rule" "flower" {
  for_each          = var.flower_cidrs
  security_group_id = aws_security_group.flower.id
  description       = "A VPN or bastion."
  cidr_ipv4         = each.key
  ip_protocol       = "tcp"
  from_port         = local.flower_port
  to_port           = local.flower_port
}

resource "aws_vpc_security_group_ingress_rule" "endpoints" {
  security_group_id = aws_security_group.endpoints.id
  description       = "Hosts in the VPC."
  cidr_ipv4         = var.vpc_cidr
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "services" {
  for_each          = local.egress
  security_group_id = local.groups[each.value.from]
  description       = "AWS services, model providers and webhooks."
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
}
