locals {
  # Twelve graphs, three in a row: a title, a statistic, and metrics in CloudWatch's notation.
  graphs = [
    { title = "Queued prompts", stat = "Maximum", metrics = [[var.name, "promptwire_queue_depth"]] },
    { title = "Age of the oldest queued prompt, s", stat = "Maximum", metrics = [[var.name, "promptwire_oldest_queued_seconds"]] },
    { title = "Tasks", stat = "Average", metrics = [
      for service in ["api", "worker"] :
      ["ECS/ContainerInsights", "RunningTaskCount", "ClusterName", aws_ecs_cluster.this.name, "ServiceName", service]
    ] },
    { title = "Requests", stat = "Sum", metrics = [
      for metric in ["RequestCount", "HTTPCode_Target_4XX_Count", "HTTPCode_Target_5XX_Count", "HTTPCode_ELB_5XX_Count"] :
      ["AWS/ApplicationELB", metric, "LoadBalancer", aws_lb.this.arn_suffix]
    ] },
    { title = "Response time, median, s", stat = "p50", metrics = [
      ["AWS/ApplicationELB", "TargetResponseTime", "LoadBalancer", aws_lb.this.arn_suffix],
    ] },
    { title = "Connections (clients and tasks)", stat = "Sum", metrics = [
      ["AWS/ApplicationELB", "ActiveConnectionCount", "LoadBalancer", aws_lb.this.arn_suffix],
    ] },
    { title = "Task CPU, %", stat = "Average", metrics = [
      for service in ["api", "worker"] :
      ["AWS/ECS", "CPUUtilization", "ClusterName", aws_ecs_cluster.this.name, "ServiceName", service]
    ] },
    { title = "Task memory, %", stat = "Maximum", metrics = [
      for service in ["api", "worker"] :
      ["AWS/ECS", "MemoryUtilization", "ClusterName", aws_ecs_cluster.this.name, "ServiceName", service]
    ] },
    { title = "PostgreSQL: CPU, %", stat = "Average", metrics = [
      ["AWS/RDS", "CPUUtilization", "DBInstanceIdentifier", aws_db_instance.this.identifier],
    ] },
    { title = "PostgreSQL: connections", stat = "Maximum", metrics = [
      ["AWS/RDS", "DatabaseConnections", "DBInstanceIdentifier", aws_db_instance.this.identifier],
    ] },
    { title = "PostgreSQL: free storage, bytes", stat = "Minimum", metrics = [
      ["AWS/RDS", "FreeStorageSpace", "DBInstanceIdentifier", aws_db_instance.this.identifier],
    ] },
    { title = "Valkey: memory and CPU, %", stat = "Maximum", metrics = concat(
      [for member in local.cache_members : ["AWS/ElastiCache", "DatabaseMemoryUsagePercentage", "CacheClusterId", member]],
      [for member in local.cache_members : ["AWS/ElastiCache", "EngineCPUUtilization", "CacheClusterId", member]],
    ) },
  ]
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name

  dashboard_body = jsonencode({
    widgets = [
      for index, graph in local.graphs : {
        type       = "metric"
        x          = 8 * (index % 3)
        y          = 6 * floor(index / 3)
        width      = 8
        height     = 6
        properties = merge(graph, { region = var.region, period = 60, view = "timeSeries" })
      }
    ]
  })
}
