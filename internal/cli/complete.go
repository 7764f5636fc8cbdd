package cli

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/apikeys"
	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/spf13/cobra"
)

const (
	maxCompletions = 100 // that the shell is offered
	pagesCompleted = 20  // of users that are read for them
)

// complete lets the shell complete the argument of the commands below a command whose usage has
// it, by names in the store that the flags before it select. Nothing is offered if the store
// cannot be read.
func complete(
	below *cobra.Command, argument string, choose func(*operator) (json.RawMessage, error),
	names func(o *operator, begin string) ([]string, error),
) {
	for _, cmd := range below.Commands() {
		complete(cmd, argument, choose, names)
		if !strings.Contains(cmd.Use, argument) {
			continue
		}
		cmd.ValidArgsFunction = func(
			cmd *cobra.Command, args []string, begin string,
		) (found []string, _ cobra.ShellCompDirective) {
			if len(args) == 0 {
				_ = onStoreOf(choose, false, func(o *operator) (err error) {
					found, err = names(o, begin)
					return err
				})(cmd, nil)
			}
			return found, cobra.ShellCompDirectiveNoFileComp
		}
	}
}

// Complete lets the shell complete the argument of the commands below a command whose usage has
// it, by names in the store of [OnStore].
func Complete(
	below *cobra.Command, argument string, names func(ctx context.Context, users store.UserStore) ([]string, error),
) {
	complete(below, argument, (*operator).chooseSites, func(o *operator, begin string) ([]string, error) {
		all, err := names(o.ctx, o.store)
		return beginning(all, begin), err
	})
}

func beginning(all []string, begin string) (found []string) {
	for _, name := range all {
		if strings.HasPrefix(name, begin) && len(found) < maxCompletions {
			found = append(found, name)
		}
	}
	return found
}

// userNames returns the addresses of users that begin with a text.
func userNames(o *operator, begin string) (found []string, err error) {
	key := strings.ToLower(begin)
	after := key[:max(0, len(key)-1)] // before all that begin with key
	for range pagesCompleted {
		page, err := o.store.Users(o.ctx, after, usersPerPage)
		for _, user := range page {
			if strings.HasPrefix(user.EmailKey, key) {
				found = append(found, user.EmailKey)
			}
		}
		if err != nil || len(page) < usersPerPage || len(found) >= maxCompletions {
			return found[:min(len(found), maxCompletions)], err
		}
		after = page[len(page)-1].EmailKey
	}
	return found, nil
}

// near returns names of users like a mistyped one: those that begin with its first two letters, also
// in the other order, or with one of them. It reads a page of each.
func (o *operator) near(name string) (found []string) {
	key := []rune(strings.ToLower(name))
	if len(key) < 2 {
		return nil
	}
	a, b := string(key[0]), string(key[1])
	for _, begin := range []string{a + b, b + a, a, b} {
		if user, err := store.UserByKey(o.ctx, o.store, begin); err == nil {
			found = append(found, user.EmailKey)
		}
		page, _ := o.store.Users(o.ctx, begin, usersPerPage) // none if that fails
		for _, user := range page {
			if strings.HasPrefix(user.EmailKey, begin) {
				found = append(found, user.EmailKey)
			}
		}
	}
	return found
}

// keyNames returns the IDs of API keys that begin with a text, with their subjects.
func keyNames(o *operator, begin string) ([]string, error) {
	keys, err := apikeys.In(o.store, o.keyPrefix, clock.Now)
	if err != nil {
		return nil, err
	}
	page, err := keys.List(o.ctx, "", "", keysPerPage)
	all, names := make([]string, len(page)), o.subjects()
	for i, key := range page {
		all[i] = key.ID + "\t" + strings.Join([]string{names(&key), key.Name}, " ")
	}
	return beginning(all, begin), err
}
