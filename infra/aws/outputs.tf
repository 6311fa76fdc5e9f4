output "url" {
  description = "The URL of the API."
  value       = "https://${var.domain_name}/"
}

output "image_repositories" {
  description = "The image repositories, by name."
  value       = { for name, repository in aws_ecr_repository.images : name => repository.repository_url }
}

output "migrate_command" {
  description = "The command that migrates the database with the images of var.image_tag. `infra/aws/deploy.sh TAG` does it for other tags."
  value = join(" ", [
    "aws ecs run-task --region ${var.region} --cluster ${aws_ecs_cluster.this.name}",
    "--task-definition ${aws_ecs_task_definition.this["migrate"].family} --launch-type FARGATE",
    "--network-configuration 'awsvpcConfiguration={subnets=[${join(",", [for subnet in aws_subnet.private : subnet.id])}],securityGroups=[${aws_security_group.worker.id}],assignPublicIp=DISABLED}'",
  ])
}

output "flower_url" {
  description = "The URL of Flower, reachable from flower_cidrs. The password of its user admin is in the secret NAME/FLOWER_PASSWORD."
  value       = "http://flower.${aws_service_discovery_private_dns_namespace.this.name}:${local.flower_port}/"
}

output "github_role" {
  description = "The role that the workflow on main assumes: set it as the variable AWS_ROLE. Null without github_repository."
  value       = one(aws_iam_role.github[*].arn)
}

output "secrets" {
  description = "The ARNs of the secrets, by name. Enter provider keys by hand."
  value       = local.secret_arns
}

output "database_endpoint" {
  description = "The address of PostgreSQL inside the VPC."
  value       = aws_db_instance.this.endpoint
}

output "cache_endpoint" {
  description = "The address of Valkey's primary inside the VPC."
  value       = aws_elasticache_replication_group.this.primary_endpoint_address
}

output "dashboard_url" {
  description = "The URL of the CloudWatch dashboard."
  value       = "https://${var.region}.console.aws.amazon.com/cloudwatch/home?region=${var.region}#dashboards:name=${var.name}"
}
