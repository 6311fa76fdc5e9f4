#!/usr/bin/env bash
# Deploy images: infra/aws/deploy.sh TAG [--back]
# Migrate the database, update the services, and wait until they are stable. `--back` skips the migration: older images
# run on the newer schema but cannot migrate it. Changes that Terraform made to a task definition are deployed too.
# Needs jq, and the AWS CLI with the rights in github.tf. NAME is Terraform's variable `name`.
set -euo pipefail

tag=${1:?usage: infra/aws/deploy.sh TAG [--back]}
name=${NAME:-promptwire}
services=(api worker flower)

# Register a copy of the family's latest task definition with the images of the tag. Print its ARN.
register() {
    aws ecs describe-task-definition --task-definition "$name-$1" --query taskDefinition --output json |
        jq --arg tag "$tag" '
            .containerDefinitions[].image |= sub(":[^:/]+$"; ":" + $tag)
            | {family, taskRoleArn, executionRoleArn, networkMode, containerDefinitions, volumes,
               requiresCompatibilities, cpu, memory, runtimePlatform} | del(..|nulls)' >"$scratch/$1.json"
    aws ecs register-task-definition --cli-input-json "file://$scratch/$1.json" \
        --query taskDefinition.taskDefinitionArn --output text
}

# Run one task in the workers' network. Fail if the task fails.
migrate() {
    local definition=$1 network task code
    network=$(aws ecs describe-services --cluster "$name" --services worker \
        --query 'services[0].networkConfiguration' --output json)
    task=$(aws ecs run-task --cluster "$name" --task-definition "$definition" --launch-type FARGATE \
        --network-configuration "$network" --query 'tasks[0].taskArn' --output text)
    [ "$task" != None ] || { echo "The migration could not be started." >&2; return 1; }
    echo "Migrating: $task"
    # `wait` gives up after ten minutes, and migrating a large table may take longer.
    for _ in 1 2 3 4 5 6; do
        if aws ecs wait tasks-stopped --cluster "$name" --tasks "$task"; then break; fi
    done
    code=$(aws ecs describe-tasks --cluster "$name" --tasks "$task" \
        --query 'tasks[0].containers[0].exitCode' --output text)
    [ "$code" = 0 ] || { echo "The migration failed ($code): see the log group /$name/migrate." >&2; return 1; }
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

if [ "${2:-}" != --back ]; then
    migration=$(register migrate)
    migrate "$migration"
fi

declare -A wanted
for service in "${services[@]}"; do
    wanted[$service]=$(register "$service")
    aws ecs update-service --cluster "$name" --service "$service" --task-definition "${wanted[$service]}" >/dev/null
done
aws ecs wait services-stable --cluster "$name" --services "${services[@]}"

# A service that was rolled back is stable too.
for service in "${services[@]}"; do
    running=$(aws ecs describe-services --cluster "$name" --services "$service" \
        --query 'services[0].taskDefinition' --output text)
    [ "$running" = "${wanted[$service]}" ] || { echo "$service was rolled back to $running." >&2; exit 1; }
done
echo "Deployed $tag."
