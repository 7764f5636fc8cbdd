package web

import (
	"fmt"
	"math"

	"github.com/caddy-jwt/caddy-jwt/accounts"
)

var (
	black, white = accounts.Color{}, accounts.Color{255, 255, 255}
	lightBack    = accounts.Color{0xf3, 0xf4, 0xf7} // --back of the light theme in style.css
	darkCard     = accounts.Color{0x1b, 0x1e, 0x24} // --card of the dark one, lighter than its --back
	onDarkAccent = accounts.Color{0x0b, 0x0d, 0x12}
)

const readable = 4.5 // contrast of a text (WCAG 2.2 §1.4.3)

// accentStyle returns the style that replaces the accent of style.css.
func accentStyle(accent accounts.Color) string {
	light, dark := readableOn(accent, lightBack, black), readableOn(accent, darkCard, white)
	return fmt.Sprintf(`
:root { --accent: %s; --accent-hover: %s; --on-accent: %s; }
@media (prefers-color-scheme: dark) { :root { --accent: %s; --accent-hover: %s; --on-accent: %s; } }
`, css(light), css(mixed(light, black, .2)), css(white), css(dark), css(mixed(dark, white, .3)), css(onDarkAccent))
}

// readableOn mixes a colour with another until a text of it can be read on the background.
func readableOn(c, back, with accounts.Color) accounts.Color {
	for part := 0.0; part < 1; part += .02 {
		if m := mixed(c, with, part); contrast(m, back) >= readable {
			return m
		}
	}
	return with
}

func mixed(c, with accounts.Color, part float64) (m accounts.Color) {
	for i := range c {
		m[i] = uint8(math.Round(float64(c[i])*(1-part) + float64(with[i])*part))
	}
	return m
}

// contrast returns the contrast of two colours, from 1 to 21 (WCAG 2.2, contrast ratio).
func contrast(a, b accounts.Color) float64 {
	la, lb := luminance(a), luminance(b)
	return (max(la, lb) + .05) / (min(la, lb) + .05)
}

// luminance returns the relative luminance of a colour, from 0 to 1 (WCAG 2.2).
func luminance(c accounts.Color) float64 {
	var linear [3]float64
	for i, value := range c {
		v := float64(value) / 255
		if linear[i] = v / 12.92; v > .04045 {
			linear[i] = math.Pow((v+.055)/1.055, 2.4)
		}
	}
	return .2126*linear[0] + .7152*linear[1] + .0722*linear[2]
}

func css(c accounts.Color) string { return fmt.Sprintf("#%02x%02x%02x", c[0], c[1], c[2]) }
