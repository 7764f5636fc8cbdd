package chromiumtest

import (
	"context"
	"fmt"
	"testing"
	"time"

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

// Explore calls an operation on the page of the API explorer, and returns the answer that it shows. client is
// `client_id:client_secret`, or empty.
func (p Page) Explore(method, path, client, body string) (answer string) {
	p.T.Helper()
	one := fmt.Sprintf(`[...document.querySelectorAll("details")].find((one) =>
		one.querySelector("code").textContent === %q && one.querySelector("strong").textContent === %q)`, path, method)
	p.until(path+" is there", func() bool { return p.Text(`String(Boolean(`+one+`))`) == "true" })
	p.Text(fmt.Sprintf(`(() => {
		const form = %s.querySelector("form"), { body, basic } = form.elements;
		if (body) body.value = %q;
		if (basic) basic.value = %q;
		form.requestSubmit();
		return "";
	})()`, one, body, client))
	p.until(path+" is answered", func() bool {
		answer = p.Text(one + `.querySelector("pre").textContent`)
		return answer != "" && answer != "…"
	})
	return answer
}

// until polls until a condition holds, at most for 20 seconds.
func (p Page) until(what string, met func() bool) {
	p.T.Helper()
	for end := time.Now().Add(20 * time.Second); !met(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			p.T.Fatalf("%s: never: %s", p.Name, what)
		}
	}
}
