# Caddy with caddy-jwt, oidc and postgres. It runs as the user 65532, and needs nothing but
# the folders /data (certificates, users, keys: keep it) and /config.
#
#	docker build -t caddy-jwt .
#	docker run -p 80:80 -p 443:443 -v $PWD/Caddyfile:/etc/caddy/Caddyfile:ro -v caddy_data:/data caddy-jwt

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION
RUN CGO_ENABLED=0 go build -trimpath \
	-ldflags="-s -w -X github.com/caddy-jwt/caddy-jwt/internal/cli.release=$VERSION" -o /out/usr/bin/caddy ./cmd/caddy
RUN mkdir -p /out/data /out/config /out/etc/caddy && cp packaging/Caddyfile /out/etc/caddy/Caddyfile

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build --chown=65532:65532 /out/ /
ENV XDG_CONFIG_HOME=/config XDG_DATA_HOME=/data
VOLUME /data /config
EXPOSE 80 443 443/udp
ENTRYPOINT ["/usr/bin/caddy"]
CMD ["run", "--config", "/etc/caddy/Caddyfile"]
