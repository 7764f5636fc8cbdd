package provider

import "github.com/caddy-jwt/caddy-jwt/internal/answer"

var (
	documents = answer.CountResults("client_documents_total",
		"Loads of client ID metadata documents by result: loaded, refused (the document is not usable) or unreachable.")
	documentsLoaded      = documents.WithLabelValues("loaded")
	documentsRefused     = documents.WithLabelValues("refused")
	documentsUnreachable = documents.WithLabelValues("unreachable")
)
