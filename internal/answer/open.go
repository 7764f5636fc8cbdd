package answer

import "net/http"

// Open prepares the response with a document for everybody, also for pages of other origins
// (Fetch standard: CORS protocol). It returns true if it has answered the request: a preflight,
// or a method other than GET and HEAD.
func Open(w http.ResponseWriter, r *http.Request) (answered bool) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Cache-Control", "public, max-age=10")
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return false
	case http.MethodOptions:
		w.Header().Set("Access-Control-Allow-Methods", "GET, HEAD")
		w.Header().Set("Access-Control-Allow-Headers", "*")
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Allow", "GET, HEAD, OPTIONS")
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
	return true
}
