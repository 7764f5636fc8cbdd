package postgres_test

import (
	"fmt"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/apikeys"
	"github.com/caddy-jwt/caddy-jwt/internal/scenario"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// keysSite accepts API keys that are in the accounts' database.
func keysSite(dsn string) string {
	return fmt.Sprintf("jwt /todos/* {\n api_keys\n accounts {\n signup open\n store postgres %q\n}\n}\n"+
		" respond /todos/* {http.auth.user.id}", dsn)
}

// Two nodes on one database accept and refuse the same API keys, within a second.
func TestScenarioTwoNodesKeys(t *testing.T) {
	seen := scenario.Promise(t, "API keys at two nodes: a change is known at both within a second; of many changes at "+
		"once one wins; whoever revokes wins")
	s := start(t)
	nodes := startNodes(t, 2, keysSite(s.database("keys")))
	token, _ := nodes[0].signsUp("alice@example.com")
	made := func(n *node, name string) (key, id string) {
		t.Helper()
		status, body := n.send("POST", "/auth/keys", token, map[string]string{"name": name})
		if status != 201 {
			t.Fatal(status, body)
		}
		return body["key"].(string), body["id"].(string)
	}
	known := func(key string, want int, of ...*node) time.Duration {
		t.Helper()
		since := time.Now()
		for _, n := range of {
			sitetest.Eventually(t, "a node notices", func() bool {
				status, _ := n.send("GET", "/todos/", key, nil)
				return status == want
			})
		}
		return time.Since(since).Round(time.Millisecond)
	}
	key, id := made(nodes[0], "first")
	added := known(key, 200, nodes...)

	// Of many who roll a key at once, at both nodes, one succeeds.
	var all sync.WaitGroup
	var won, lost atomic.Int64
	secrets := make(chan string, 20)
	for i := range 20 {
		all.Go(func() {
			status, body := nodes[i%2].send("POST", "/auth/keys/"+id, token, map[string]string{})
			switch status {
			case 200:
				won.Add(1)
				secrets <- body["key"].(string)
			case 409:
				lost.Add(1)
			default:
				t.Errorf("a roll: %d %v", status, body)
			}
		})
	}
	all.Wait()
	close(secrets)
	known(key, 401, nodes...)
	accepted := make(map[int]int)
	for secret := range secrets {
		for i, n := range nodes {
			if status, _ := n.send("GET", "/todos/", secret, nil); status == 200 {
				accepted[i]++
				key = secret
			}
		}
	}
	sitetest.Eventually(t, "both nodes know the last secret", func() bool {
		one, _ := nodes[0].send("GET", "/todos/", key, nil)
		two, _ := nodes[1].send("GET", "/todos/", key, nil)
		return one == 200 && two == 200
	})
	if won.Load() != 1 || lost.Load() != 19 || accepted[0] > 1 || accepted[1] > 1 {
		t.Errorf("of 20 rolls %d won, %d lost; accepted %v", won.Load(), lost.Load(), accepted)
	}

	// Whoever revokes a key while others roll it wins.
	secrets = make(chan string, 10)
	for i := range 10 {
		all.Go(func() {
			if i == 5 {
				if status, body := nodes[1].send("DELETE", "/auth/keys/"+id, token, nil); status != 204 {
					t.Errorf("the revocation: %d %v", status, body)
				}
				return
			}
			status, body := nodes[i%2].send("POST", "/auth/keys/"+id, token, map[string]string{})
			if status == 200 {
				secrets <- body["key"].(string)
			} else if status != 404 && status != 409 {
				t.Errorf("a roll beside it: %d %v", status, body)
			}
		})
	}
	all.Wait()
	close(secrets)
	revoked := known(key, 401, nodes...)
	for secret := range secrets {
		known(secret, 401, nodes...)
	}

	key, id = made(nodes[1], "second")
	known(key, 200, nodes...)
	if status, _ := nodes[0].send("DELETE", "/auth/keys/"+id, token, nil); status != 204 {
		t.Fatal(status)
	}
	if status, _ := nodes[0].send("GET", "/todos/", key, nil); status != 401 {
		t.Error("the node that revoked a key still accepts it")
	}
	elsewhere := known(key, 401, nodes[1])
	if scenario.Full() && max(added, elsewhere, revoked) > time.Second {
		t.Errorf("a new key was known after %s, a revoked one after %s, one revoked beside rolls after %s",
			added, elsewhere, revoked)
	}
	seen(
		"a new key known after %s, a revoked one at the other node after %s; of 20 rolls at once %d won and %d "+
			"lost", added, elsewhere, won.Load(), lost.Load(),
	)
}

// Requests with a key are counted at all nodes together.
func TestTwoNodesKeyRate(t *testing.T) {
	s := start(t)
	nodes := startNodes(t, 2, keysSite(s.database("rates")))
	output := nodes[0].Command("key", "add", "--subject", "billing", "--rate", "100/1h")
	key := regexp.MustCompile(apikeys.Pattern("key")).FindString(output)
	for _, n := range nodes {
		sitetest.Eventually(t, "a node knows the key", func() bool {
			status, _ := n.send("GET", "/todos/", key, nil)
			return status != 401
		})
	}
	allowed := 2
	for i := range 150 {
		switch status, body := nodes[i%2].send("GET", "/todos/", key, nil); status {
		case 200:
			allowed++
		case 429:
		default:
			t.Fatal(status, body)
		}
	}
	if allowed > 102 || allowed < 80 { // one may be allowed again, and each node may lose a lease
		t.Errorf("of 152 requests at two nodes %d were allowed, instead of 100", allowed)
	}
}
