package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/internal/owner"
	"github.com/caddy-jwt/caddy-jwt/signing"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddy-jwt/caddy-jwt/store/filestore"
	"github.com/caddy-jwt/caddy-jwt/upstream"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"github.com/spf13/cobra"
)

func keysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Manages the keys that sign the tokens of a site",
		Long: `
Manages the keys that sign the tokens of a site: those of its accounts and those of
upstream_token. The keys are in the storage of the Caddy config, which by default is
the data directory of the user who runs Caddy. Only that user can read them, so run
the command as that user, as in:
sudo -u caddy -H caddy jwt keys list --config /etc/caddy/Caddyfile`,
		Example: `  caddy jwt keys list
  caddy jwt keys rotate --config /etc/caddy/Caddyfile`,
	}
	addConfigFlags(cmd, "Caddy config with the accounts or upstream_token; by default the Caddyfile in this folder")
	cmd.AddCommand(listKeysCommand(), rotateKeysCommand())
	return cmd
}

func listKeysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list [flags]",
		Short: "Lists the signing keys",
		Long: `
Lists the signing keys: the key that signs now, and older keys that still verify the
tokens that they signed.`,
		Example: `  caddy jwt keys list --config /etc/caddy/Caddyfile`,
		Args:    cobra.NoArgs,
		RunE:    runs(listKeys),
	}
	cmd.Flags().Bool("json", false, "Print one JSON object per line")
	return cmd
}

func rotateKeysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rotate [flags]",
		Short: "Replaces the signing key",
		Long: `
Creates a new signing key for the accounts and each upstream_token in the config.
Running servers publish it within 15 seconds and start to sign with it after --lead,
so that all nodes, and all services that fetch the keys, have it by then. The
previous key still verifies tokens until the last one that it signed has expired, so
nobody is logged out.

Use --withdraw if a key has leaked: servers sign with the new key within 15 seconds,
and the old keys no longer verify anything. All existing access and ID tokens are
then refused, but sessions continue with their refresh tokens. Services that fetch
the keys refuse the old ones after their next fetch. The user store records which
keys are withdrawn, so a key that returns, for example from a backup, is refused.`,
		Example: `  caddy jwt keys rotate --config /etc/caddy/Caddyfile
  caddy jwt keys rotate --lead 24h --config /etc/caddy/Caddyfile`,
		Args: cobra.NoArgs,
		RunE: runs(rotateKeys),
	}
	cmd.Flags().Bool("withdraw", false, "Make the old keys invalid at once, for example after a leak")
	AddYes(cmd)
	cmd.Flags().String("lead", "", fmt.Sprintf(
		"How long the new key is published before it signs: at least as long as other services cache the keys; 0 for "+
			"a single node whose tokens no other service verifies (default %s for accounts, %s for upstream_token)",
		signing.DefaultLead, upstream.Lead,
	))
	return cmd
}

// keyPlace is a place where signing keys of accounts are stored.
type keyPlace struct {
	issuer, path string
	optional     bool             // keys only exist if another module has created them
	site         *accounts.Config // nil for keys of upstream_token
	lead         time.Duration    // of a rotation, by default
}

// use returns the option whose tokens the keys sign.
func (p keyPlace) use() string {
	switch {
	case p.site == nil:
		return "upstream_token"
	case p.optional:
		return "oidc_provider"
	}
	return "accounts"
}

// algorithmOf returns the algorithm of a stored key, such as ES256; empty if it is not readable.
func algorithmOf(key signing.StoredKey) string {
	var of struct {
		Algorithm string `json:"alg"`
	}
	_ = json.Unmarshal(key.JWK, &of)
	return of.Algorithm
}

// keyPlaces returns the places of stored keys of a config.
func keyPlaces(config *siteConfig, storage certmagic.Storage) ([]keyPlace, error) {
	sites, err := config.accounts()
	places, signs := upstreamKeys(config, storage)
	switch {
	case err != nil && len(places) > 0:
		return places, nil
	case err != nil && signs:
		return nil, signing.ErrNoStoredKey
	}
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	for _, site := range sites {
		path := site.OwnKeysPath()
		if site.Secret == nil && site.SigningKey == "" && !seen[path] {
			seen[path] = true
			places = append(places, keyPlace{issuer: site.Issuer, path: path, site: site, lead: signing.DefaultLead})
		}
		for _, algorithm := range accounts.FurtherAlgorithms {
			if path := signing.Path(site.FurtherKeys(algorithm)); !seen[path] {
				seen[path] = true
				places = append(places, keyPlace{site.Issuer, path, true, site, signing.DefaultLead})
			}
		}
	}
	if !slices.ContainsFunc(places, func(p keyPlace) bool { return !p.optional }) {
		return nil, fmt.Errorf("the accounts in %s sign with `secret` or `signing_key`, so no key is stored; "+
			"change that option and reload the config", config.file)
	}
	return places, nil
}

// withKeys calls a function with each place of keys and the storage.
func withKeys(cmd *cobra.Command, do func(caddy.Context, certmagic.Storage, keyPlace) error) error {
	config, err := loadConfig(flagsOf(cmd))
	if err != nil {
		return err
	}
	ctx, cancel, err := openContext(config.storage)
	if err != nil {
		return err
	}
	defer cancel()
	places, err := keyPlaces(config, ctx.Storage())
	if err != nil {
		return err
	}
	var errs []error
	for _, place := range places {
		if place.optional && !ctx.Storage().Exists(ctx, place.path) {
			continue
		}
		if err := do(ctx, owner.KeepAll(ctx.Storage()), place); err != nil {
			errs = append(errs, fmt.Errorf("issuer %s, %v: %w", place.issuer, ctx.Storage(), err))
		}
	}
	return errors.Join(errs...)
}

func listKeys(cmd *cobra.Command, _ []string) error {
	now := time.Now()
	table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	lines, asJSON := newJSONEncoder(cmd.OutOrStdout()), flagsOf(cmd).Bool("json")
	head := "ISSUER\tKID\tCREATED\tFOR\tALGORITHM\tSTATE\n" // not without a key, as before an error
	err := withKeys(cmd, func(ctx caddy.Context, storage certmagic.Storage, place keyPlace) error {
		stored, err := signing.Load(ctx, storage, place.path)
		for i, key := range stored.Keys {
			if asJSON {
				if err := lines.Encode(shownKey(place, stored, i, now)); err != nil {
					return err
				}
				continue
			}
			fmt.Fprintf(
				table, "%s%s\t%s\t%s\t%s\t%s\t%s\n", head, place.issuer, key.ID(),
				timeText(key.CreatedAt), place.use(), algorithmOf(key), keyState(stored, i, now),
			)
			head = ""
		}
		return err
	})
	return errors.Join(table.Flush(), err)
}

// shownKey returns a stored key for JSON.
func shownKey(place keyPlace, s signing.Stored, i int, now time.Time) map[string]any {
	key := s.Keys[i]
	shown := map[string]any{
		"issuer": place.issuer, "for": place.use(), "algorithm": algorithmOf(key), "kid": key.ID(),
		"created_at": key.CreatedAt.UTC(), "signs": i == s.Signs(now),
		"signs_from": nil, "verifies_until": nil, "state": keyState(s, i, now),
	}
	if !key.SignsFrom.IsZero() {
		shown["signs_from"] = key.SignsFrom.UTC()
	}
	if !key.VerifyUntil.IsZero() {
		shown["verifies_until"] = key.VerifyUntil.UTC()
	}
	return shown
}

// keyState describes the use of a stored key.
func keyState(s signing.Stored, i int, now time.Time) string {
	key := s.Keys[i]
	switch {
	case i == s.Signs(now):
		return "signs"
	case key.SignsFrom.After(now) && !slices.ContainsFunc(s.Keys[:i], func(newer signing.StoredKey) bool {
		return !newer.SignsFrom.After(key.SignsFrom)
	}):
		return "signs from " + timeText(key.SignsFrom)
	case key.VerifyUntil.After(now):
		return "verifies until " + timeText(key.VerifyUntil)
	}
	return "no longer used"
}

func rotateKeys(cmd *cobra.Command, _ []string) error {
	flags := flagsOf(cmd)
	lead, err := time.Duration(0), error(nil)
	if text := flags.String("lead"); text != "" {
		if lead, err = caddy.ParseDuration(text); err != nil {
			return fmt.Errorf("--lead %q: it must be a duration, as in 45s, 24h or 2d", text)
		}
	}
	r := signing.Rotation{Now: time.Now(), Withdraw: flags.Bool("withdraw")}
	switch {
	case r.Withdraw && cmd.Flags().Changed("lead"):
		return errors.New("--withdraw and --lead cannot be combined, because --withdraw makes the new key sign at " +
			"once; remove one of them")
	case lead < 0 || lead > signing.LongestLead:
		return fmt.Errorf(
			"--lead %s: it must be from 0 to %dd", flags.String("lead"), signing.LongestLead/(24*time.Hour),
		)
	}
	if r.Withdraw {
		err := Confirm(cmd, "withdraw all signing keys; every access and ID token that exists is then refused")
		if err != nil {
			return err
		}
	}
	return withKeys(cmd, func(ctx caddy.Context, storage certmagic.Storage, place keyPlace) error {
		if r.Lead = lead; !cmd.Flags().Changed("lead") {
			r.Lead = place.lead
		}
		begins, becomes := "from "+timeText(r.Now.Add(r.Lead))+" on", "verifies what it signed"
		switch {
		case r.Withdraw:
			r.Lead, begins, becomes = 0, "within 15 seconds", "and all older keys are withdrawn"
		case r.Lead == 0:
			begins = "within 15 seconds"
		}
		if r.Remember = nil; place.site == nil {
			return rotate(cmd, ctx, storage, place, r, begins, becomes)
		}
		r.Remember = func(ids []string) error {
			if err := filestore.CheckExists(place.site.StoreRaw); err != nil {
				return err
			}
			chosen := *place.site // a copy, because LoadStore clears the module's config
			users, err := accounts.LoadStore(ctx, &chosen)
			if err != nil {
				return err
			}
			return store.WithdrawKeys(ctx, users, place.path, ids)
		}
		return rotate(cmd, ctx, storage, place, r, begins, becomes)
	})
}

func rotate(
	cmd *cobra.Command, ctx caddy.Context, storage certmagic.Storage, place keyPlace, r signing.Rotation,
	begins, becomes string,
) error {
	old, successor, err := signing.Rotate(ctx, storage, place.path, r)
	if err == nil {
		fmt.Fprintf(
			cmd.OutOrStdout(), "issuer %s: %s signs %s, and %s %s\n", place.issuer, successor, begins, old, becomes,
		)
	}
	return err
}

// upstreamKeys returns the places of the keys of each upstream_token in a config. An issuer
// that is named after its site is found by the keys that exist.
// signs reports whether there is an upstream_token.
func upstreamKeys(config *siteConfig, storage certmagic.Storage) (places []keyPlace, signs bool) {
	add := func(issuer, path string) {
		if !slices.ContainsFunc(places, func(known keyPlace) bool { return known.path == path }) {
			places = append(places, keyPlace{issuer: issuer, path: path, lead: upstream.Lead})
		}
	}
	for _, handler := range config.handlers("jwt") {
		var of struct {
			Token *struct{ Issuer, Algorithm string } `json:"upstream_token"`
		}
		if json.Unmarshal(handler.text, &of) != nil || of.Token == nil {
			continue
		}
		signs = true
		replacer := caddy.NewReplacer()
		issuer := replacer.ReplaceKnown(of.Token.Issuer, "")
		algorithm := cmp.Or(replacer.ReplaceKnown(of.Token.Algorithm, ""), upstream.DefaultAlgorithm)
		if issuer != "" {
			add(issuer, upstream.Path(issuer, algorithm))
			continue
		}
		paths, _ := storage.List(context.Background(), signing.Folder, false) // none, if it cannot be read
		for _, path := range paths {
			stored, err := signing.Load(context.Background(), storage, path)
			site, parseErr := url.Parse(stored.Issuer)
			if err != nil || parseErr != nil || path != upstream.Path(stored.Issuer, algorithm) ||
				site.Path != upstream.DefaultPath {
				continue
			}
			if slices.ContainsFunc(handler.places, func(place string) bool {
				return slices.Contains(strings.FieldsFunc(place, func(r rune) bool {
					return r == ' ' || r == ','
				}), site.Hostname())
			}) {
				add(stored.Issuer, path)
			}
		}
	}
	return places, signs
}
