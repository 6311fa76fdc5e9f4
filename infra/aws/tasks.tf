# The tasks, with the same commands, ports and environment as in docker-compose.yml.

locals {
  # For every task except Flower. Settings that are neither here nor in var.settings have the application's defaults.
  environment = merge(var.settings, {
    APP_ENV         = "prod"
    LOG_FORMAT      = "json"
    PUBLIC_URL      = "https://${var.domain_name}"
    TRUSTED_PROXIES = "1"
    ALLOWED_ORIGINS = join(",", var.allowed_origins)
  })

  app_secrets = concat(["DATABASE_URL", "REDIS_URL", "JWT_SECRET_KEY"], tolist(var.provider_keys))

  stop = {
    # The API stops within about 10 s (`graceful_timeout` in gunicorn.conf.py, and 1 s to close its WebSockets).
    api = 20
    # The worker continues for SOFT_SHUTDOWN_SECONDS and releases the rest. This is the maximum on Fargate and Spot.
    worker = 120
  }

  tasks = {
    api = {
      image   = "api"
      cpu     = var.api.cpu
      memory  = var.api.memory
      command = ["gunicorn", "-c", "infra/gunicorn.conf.py", "api.wsgi:app"]
      environment = merge(local.environment, {
        LISTEN_ADDRESS = "0.0.0.0"
        PORT           = tostring(local.api_port)
        API_PROCESSES  = tostring(var.api.processes)
      })
      secrets      = concat(local.app_secrets, ["METRICS_TOKEN"])
      port         = local.api_port
      health       = ["CMD", "python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:${local.api_port}/livez/', timeout=4)"]
      stop_seconds = local.stop.api
    }
    worker = {
      image  = "worker"
      cpu    = var.worker.cpu
      memory = var.worker.memory
      command = [
        "celery", "--quiet", "-A", "worker.app", "worker", "-E", "--hostname=worker@%h", "--without-mingle", "--without-gossip",
      ]
      environment = merge(local.environment, {
        WORKER_THREADS        = tostring(var.worker.threads)
        WORKER_PROCESSES      = tostring(var.worker.processes)
        REMAP_SIGTERM         = "SIGQUIT"
        SOFT_SHUTDOWN_SECONDS = tostring(local.stop.worker - 20)
        HEARTBEAT_FILE        = "/dev/shm/promptwire-worker"
      })
      secrets      = local.app_secrets
      port         = null
      health       = ["CMD", "python", "-m", "worker.healthcheck"]
      stop_seconds = local.stop.worker
    }
    migrate = {
      image        = "api"
      cpu          = 256
      memory       = 1024
      command      = ["alembic", "upgrade", "head"]
      environment  = local.environment
      secrets      = ["DATABASE_URL", "REDIS_URL", "JWT_SECRET_KEY"]
      port         = null
      health       = null
      stop_seconds = 30
    }
    flower = {
      image   = "worker"
      cpu     = 256
      memory  = 1024
      command = ["python", "-m", "worker.flower"]
      environment = {
        APP_ENV        = "prod"
        LISTEN_ADDRESS = "0.0.0.0"
        FLOWER_PORT    = tostring(local.flower_port)
      }
      secrets      = ["REDIS_URL", "FLOWER_PASSWORD"]
      port         = local.flower_port
      health       = ["CMD", "python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:${local.flower_port}/healthcheck', timeout=4)"]
      stop_seconds = 10
    }
  }

  containers = {
    for name, task in local.tasks : name => merge(
      {
        name        = name
        image       = "${aws_ecr_repository.images[task.image].repository_url}:${var.image_tag}"
        essential   = true
        command     = task.command
        environment = [for key, value in task.environment : { name = key, value = value }]
        secrets     = [for key in task.secrets : { name = key, valueFrom = local.secret_arns[key] }]
        stopTimeout = task.stop_seconds
        # One descriptor a socket: 20,000 for a gunicorn process, and a reserve.
        ulimits                = [{ name = "nofile", softLimit = 65536, hardLimit = 65536 }]
        readonlyRootFilesystem = true
        linuxParameters = {
          initProcessEnabled = true
          capabilities       = { drop = ["ALL"] }
          tmpfs              = [{ containerPath = "/tmp", size = 64 }]
        }
        logConfiguration = {
          logDriver = "awslogs"
          options = {
            awslogs-group         = aws_cloudwatch_log_group.this[name].name
            awslogs-region        = var.region
            awslogs-stream-prefix = name
          }
        }
      },
      task.port == null ? {} : { portMappings = [{ name = name, containerPort = task.port, protocol = "tcp" }] },
      task.health == null ? {} : {
        healthCheck = { command = task.health, interval = 30, timeout = 5, retries = 3, startPeriod = 30 }
      },
    )
  }

  # A sidecar of each API: prints the queue metrics of /metrics in CloudWatch's embedded metric format.
  metrics_container = merge(local.containers.api, {
    name          = "metrics"
    essential     = false
    command       = ["python", "-m", "infra.monitoring.cloudwatch", var.name]
    environment   = [{ name = "PORT", value = tostring(local.api_port) }]
    secrets       = [for secret in local.containers.api.secrets : secret if secret.name == "METRICS_TOKEN"]
    portMappings  = []
    healthCheck   = null
    restartPolicy = { enabled = true, restartAttemptPeriod = 60 }
  })
}

resource "aws_ecs_task_definition" "this" {
  for_each                 = local.tasks
  family                   = "${var.name}-${each.key}"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = each.value.cpu
  memory                   = each.value.memory
  execution_role_arn       = aws_iam_role.execution[each.key].arn
  task_role_arn            = aws_iam_role.task[each.key].arn
  container_definitions = jsonencode(concat(
    [local.containers[each.key]], each.key == "api" ? [local.metrics_container] : [],
  ))
  # Keep running revisions, and those that a deployment may be rolled back to.
  skip_destroy = true

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.cpu_architecture
  }
}
