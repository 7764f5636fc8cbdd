#!/usr/bin/env bash
# Makes the data of this folder with the Caddy that is given, of the version before:
#
#	cmd/caddy/testdata/older/make.sh <path of a caddy>
#
# It needs curl and openssl. README.md says what comes out.
set -euo pipefail
caddy=$(realpath "$1")
cd "$(dirname "$0")"
work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; rm -rf "$work" caddy.sock caddy.log' EXIT
export HOME=$work XDG_DATA_HOME=$work/data XDG_CONFIG_HOME=$work/config
rm -rf storage withdrawn answers users.db*
mkdir answers

password='correct horse battery'
ask() { # <path and host> [<curl arguments>]
	curl -sS --fail-with-body --unix-socket caddy.sock "http://$1" "${@:2}"
}
post() { ask "$1" -H 'Content-Type: application/json' -d "$2"; }
start() {
	"$caddy" run --config Caddyfile 2>>"$work/log" &
	pids+=($!)
	for _ in $(seq 100); do
		ask app.example/auth/jwks.json >/dev/null 2>&1 && return
		sleep 0.1
	done
	cat "$work/log" caddy.log >&2
	exit 1
}
stop() { # cleanly: then SQLite has merged its log into the file
	kill "${pids[-1]}"
	wait "${pids[-1]}" || true
	unset 'pids[-1]'
}

# A partner whose key set is fetched and stored.
openssl genpkey -algorithm ed25519 -out "$work/partner.pem"
x=$(openssl pkey -in "$work/partner.pem" -pubout -outform DER | tail -c 32 | base64 -w 0 | tr '+/' '-_' | tr -d =)
"$caddy" respond --listen 127.0.0.1:29871 --header 'Content-Type: application/json' \
	--body "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"$x\",\"kid\":\"partner-1\",\"use\":\"sig\"}]}" >/dev/null 2>&1 &
pids+=($!)
partner=${pids[0]}
"$caddy" jwt token --key "@$work/partner.pem" --kid partner-1 --lifetime 36500d --claim iss=https://partner.example \
	--claim sub=paula --claim aud=https://app.example --claim scope='read write' >answers/partner.jwt

"$caddy" adapt --config Caddyfile --pretty >adapted.json

# Keys that are withdrawn, which the store remembers.
start
post app.example/auth/signup "{\"email\":\"alice@example.com\",\"password\":\"$password\",\"name\":\"Alice\"}" >answers/alice.json
stop
cp -r storage/jwt/signing_keys withdrawn
"$caddy" jwt keys rotate --withdraw --config Caddyfile

# Tokens of a key, a provider's grant, and the cookies of a browser.
start
post app.example/auth/login "{\"email\":\"alice@example.com\",\"password\":\"$password\"}" >answers/login.json
ask id.example/auth/login -o /dev/null -D "$work/headers" -H 'Accept: text/html' \
	--data-urlencode email=alice@example.com --data-urlencode "password=$password"
sed -nE 's/^Set-Cookie: ([^;]+);.*/\1/p' "$work/headers" | paste -sd ';' | sed 's/;/; /g' >answers/cookies.txt
code=$(ask id.example/oidc/authorize -o /dev/null -w '%{redirect_url}' -G -H "Cookie: $(cat answers/cookies.txt)" \
	-d client_id=shop -d response_type=code -d redirect_uri=https://shop.example/callback -d 'scope=openid+email+offline_access' |
	sed -E 's/.*[?&]code=([^&]+).*/\1/')
ask id.example/oidc/token -u shop:a-secret-of-the-shop-0123456789 -d grant_type=authorization_code \
	-d redirect_uri=https://shop.example/callback -d "code=$code" >answers/shop.json
stop

# Keys that are rotated, and what the commands put into the store.
"$caddy" jwt keys rotate --lead 0 --config Caddyfile
"$caddy" jwt client add --store users.db --redirect-uri https://wiki.example/callback --grant-types client_credentials,authorization_code wiki >answers/wiki.txt
start
post app.example/auth/signup "{\"email\":\"bob@example.com\",\"password\":\"$password\",\"name\":\"Bob\"}" >answers/bob.json
post app.example/auth/login "{\"email\":\"bob@example.com\",\"password\":\"$password\"}" >answers/later.json
ask app.example/auth/jwks.json >answers/app-jwks.json
ask id.example/oidc/jwks.json >answers/id-jwks.json
ask app.example/metrics | grep '^caddy_jwt' | sed -E 's/ [^ ]+$//' | LC_ALL=C sort >answers/metrics.txt
"$caddy" jwt user reset-link --store users.db --base http://app.example --lifetime 36500d bob@example.com >answers/reset-link.txt
stop

# What is Caddy's own, and neither keys nor key sets, is not kept.
find storage -mindepth 1 -maxdepth 1 ! -name jwt -exec rm -rf {} +
kill "$partner"
