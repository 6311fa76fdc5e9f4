# The role of a workflow on the repository's main branch. It may push images, migrate the database and update the
# services. It needs no key: GitHub identifies the workflow (OIDC).

locals {
  github = var.github_repository == "" ? 0 : 1
  github_provider = var.github_oidc_provider_arn != "" ? var.github_oidc_provider_arn : one(
    aws_iam_openid_connect_provider.github[*].arn
  )
}

resource "aws_iam_openid_connect_provider" "github" {
  count          = var.github_repository != "" && var.github_oidc_provider_arn == "" ? 1 : 0
  url            = "https://token.actions.githubusercontent.com"
  client_id_list = ["sts.amazonaws.com"]
}

data "aws_iam_policy_document" "github_assume" {
  count = local.github

  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]
    principals {
      type        = "Federated"
      identifiers = [local.github_provider]
    }
    condition {
      test     = "StringEquals"
      variable = "token.actions.githubusercontent.com:aud"
      values   = ["sts.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "token.actions.githubusercontent.com:sub"
      values   = ["repo:${var.github_repository}:ref:refs/heads/main"]
    }
  }
}

resource "aws_iam_role" "github" {
  count              = local.github
  name               = "${var.name}-github"
  assume_role_policy = data.aws_iam_policy_document.github_assume[0].json
}

data "aws_iam_policy_document" "github" {
  #checkov:skip=CKV_AWS_356: GetAuthorizationToken and DescribeTaskDefinition do not support resources
  statement {
    sid       = "LogInToRegistry"
    actions   = ["ecr:GetAuthorizationToken", "ecs:DescribeTaskDefinition"]
    resources = ["*"]
  }

  statement {
    sid = "PushImages"
    actions = [
      "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:CompleteLayerUpload", "ecr:DescribeImages",
      "ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart",
    ]
    resources = [for repository in aws_ecr_repository.images : repository.arn]
  }

  statement {
    sid       = "WriteTaskDefinitions"
    actions   = ["ecs:RegisterTaskDefinition"]
    resources = [for name in keys(local.tasks) : "${local.ecs_arn}:task-definition/${var.name}-${name}:*"]
  }

  statement {
    sid       = "Migrate"
    actions   = ["ecs:RunTask"]
    resources = ["${local.ecs_arn}:task-definition/${var.name}-migrate:*"]
    condition {
      test     = "ArnEquals"
      variable = "ecs:cluster"
      values   = [aws_ecs_cluster.this.arn]
    }
  }

  statement {
    sid       = "SeeItEnd"
    actions   = ["ecs:DescribeTasks"]
    resources = ["${local.ecs_arn}:task/${var.name}/*"]
  }

  statement {
    sid       = "MoveServicesOn"
    actions   = ["ecs:DescribeServices", "ecs:UpdateService"]
    resources = [for service in aws_ecs_service.this : service.id]
  }

  statement {
    sid       = "GiveTasksTheirRoles"
    actions   = ["iam:PassRole"]
    resources = concat([for role in aws_iam_role.task : role.arn], [for role in aws_iam_role.execution : role.arn])
    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["ecs-tasks.amazonaws.com"]
    }
  }
}

resource "aws_iam_role_policy" "github" {
  count  = local.github
  name   = "deploy"
  role   = aws_iam_role.github[0].id
  policy = data.aws_iam_policy_document.github.json
}
