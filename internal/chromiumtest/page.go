package chromiumtest

import (
	"context"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Page is the page that a browser shows.
type Page struct {
	T       *testing.T
	Context context.Context // of the browser
	Name    string          // for errors
}

// Text returns the text that a script on the page results in, also later as a promise.
func (p Page) Text(script string) string {
	p.T.Helper()
	text, err := chromedp.Run(p.Context, chromedp.Evaluate[string](script, func(e *runtime.EvaluateParams) {
		wait := true
		e.AwaitPromise = &wait
	}))
	if err != nil {
		p.T.Fatalf("%s: %v", p.Name, err)
	}
	return text
}

// Show shows the page in a theme, light or dark, and a width in pixels, at once.
func (p Page) Show(theme string, width int64) {
	p.T.Helper()
	err := chromedp.Do(p.Context, chromedp.EmulateViewport(width, 800))
	if err == nil {
		_, err = chromedp.Call(p.Context, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{
				{Name: "prefers-color-scheme", Value: theme}, {Name: "prefers-reduced-motion", Value: "reduce"},
			},
		})
	}
	if err != nil {
		p.T.Fatalf("%s: %v", p.Name, err)
	}
}
