# Promptwire on AWS. docs/aws.md explains the parts, the decisions, and how to deploy.

terraform {
  # Write-only arguments (passwords) need 1.11.
  required_version = ">= 1.11.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
    random = {
      source  = "hashicorp/random"
      version = "~> 3.7"
    }
  }

  # `terraform init` sets the bucket and its region (see docs/aws.md).
  backend "s3" {
    key          = "promptwire/terraform.tfstate"
    encrypt      = true
    use_lockfile = true
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = {
      Project   = var.name
      ManagedBy = "terraform"
    }
  }
}

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition

  ecs_arn = "arn:${local.partition}:ecs:${var.region}:${local.account}"

  # The same as in gunicorn.conf.py, `make up` and the Dockerfiles.
  api_port      = 8000
  flower_port   = 5555
  database_port = 5432
  cache_port    = 6379
}
