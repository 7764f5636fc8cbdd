package web

import "net/http"

// explorer shows a page that lists the operations of the OpenAPI document, and calls them with a token
// that is typed in.
func (h *Handler) explorer(w http.ResponseWriter, r *http.Request) error {
	return h.pages.render(w, r, "explorer", pageData{}, http.StatusOK)
}
