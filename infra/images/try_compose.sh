#!/usr/bin/env bash
# Start the compose file as docs/deployment.md describes, with two workers, and submit a prompt. Needs Docker, curl and a
# clone without .env. Deletes everything it created afterwards, including the data.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ ! -e .env ] || { echo "A .env exists here, so there may be data: nothing was started. Run this in a fresh clone." >&2; exit 1; }

export COMPOSE_PROJECT_NAME=promptwire-try
clean_up() {
    local code=$?
    [ "$code" = 0 ] || docker compose logs --no-color --tail 50
    docker compose down --volumes
    rm .env
    exit "$code"
}
trap clean_up EXIT
(umask 077; sed "s/^JWT_SECRET_KEY=$/&$(python3 -c 'import secrets; print(secrets.token_urlsafe(48))')/" .env.example >.env)
key=$(sed -n 's/^JWT_SECRET_KEY=//p' .env)
password=$(python3 -c 'import secrets; print(secrets.token_urlsafe(16))')

docker compose up --build --detach --wait --wait-timeout 300 --scale worker=2
docker compose exec -T -e NEW_PASSWORD="$password" api python -m api.users_cli create alice

url=http://127.0.0.1:8000 json='Content-Type: application/json'
token=$(curl -fsS $url/login/ -H "$json" -d "{\"username\": \"alice\", \"password\": \"$password\"}" |
    sed 's/.*"access":"\([^"]*\)".*/\1/')
answer=$(curl -fsS $url/prompts/ -H "Authorization: Bearer $token" -H "$json" -H 'Prefer: wait=30' \
    -d '{"prompt_text": "What is a tide?"}')
echo "$answer"
grep -q '"status":"completed"' <<<"$answer"
curl -fsS -u "admin:$key" 'http://127.0.0.1:5555/api/workers?refresh=1' |
    python3 -c 'import json, sys; sys.exit(len(json.load(sys.stdin)) != 2)'
[ "$(curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:5555/api/workers)" = 401 ]
echo "The containers answered a prompt, and Flower lists both workers."
