package accounts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/caddy-jwt/caddy-jwt/internal/place"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// accountsOfSites has the accounts of each site of the loaded configs.
var accountsOfSites = struct {
	sync.Mutex
	known map[*caddyhttp.Server][]claimedAccounts
}{known: make(map[*caddyhttp.Server][]claimedAccounts)}

type claimedAccounts struct {
	hosts  []string
	config Config
}

// claimAccounts returns an error if the site already has other accounts: both would use the
// same cookies and, unless moved, the same routes, so one of them would be ignored.
func claimAccounts(ctx caddy.Context, config *Config) error {
	at := place.Of(ctx)
	if at.Server == nil {
		return nil
	}
	accountsOfSites.Lock()
	defer accountsOfSites.Unlock()
	known := accountsOfSites.known[at.Server]
	for _, other := range known {
		if len(at.Hosts) > 0 && len(other.hosts) > 0 &&
			!slices.ContainsFunc(at.Hosts, func(host string) bool { return slices.Contains(other.hosts, host) }) {
			continue
		}
		differ, err := differingOptions(other.config, *config)
		if err != nil {
			return err
		}
		if slices.Equal(differ, []string{"key_prefix"}) {
			return errors.New("this site has accounts twice, once beside api_keys and once not, so it is unclear " +
				"whether users make API keys; write api_keys beside both, or give api_keys a store of its own")
		}
		if len(differ) > 0 {
			return fmt.Errorf("this site has two accounts blocks with different %s; a site can have only one: write "+
				"the block once, as a snippet, and import it where it is needed", strings.Join(differ, ", "))
		}
	}
	if len(known) == 0 {
		context.AfterFunc(ctx, func() {
			accountsOfSites.Lock()
			defer accountsOfSites.Unlock()
			delete(accountsOfSites.known, at.Server)
		})
	}
	accountsOfSites.known[at.Server] = append(known, claimedAccounts{at.Hosts, *config})
	return nil
}

// ClaimsOf returns how many handlers of a server have accounts.
func ClaimsOf(server *caddyhttp.Server) int {
	accountsOfSites.Lock()
	defer accountsOfSites.Unlock()
	return len(accountsOfSites.known[server])
}

// differingOptions returns the JSON names of the options in which two configs differ.
func differingOptions(a, b Config) ([]string, error) {
	var options [2]map[string]json.RawMessage
	for i, accounts := range []Config{a, b} {
		text, err := json.Marshal(accounts)
		if err == nil {
			err = json.Unmarshal(text, &options[i])
		}
		if err != nil {
			return nil, err
		}
	}
	names := maps.Clone(options[0])
	maps.Copy(names, options[1])
	return slices.DeleteFunc(slices.Sorted(maps.Keys(names)), func(name string) bool {
		return string(options[0][name]) == string(options[1][name])
	}), nil
}
