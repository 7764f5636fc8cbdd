package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"
)

const (
	providerWorkers = 8
	// providerBatch is how many codes are made at a time: the memory of oidc-provider has 1000 entries.
	providerBatch  = 200
	providerSecret = "the-secret-of-the-client-0123456789"
	providerReturn = "https://app.example.com/callback"
)

// providerUnderTest is an OpenID Provider that is measured.
type providerUnderTest struct {
	name    string
	token   string // URL of the token endpoint
	process *exec.Cmd
	codes   func(count int) ([]string, error)
	client  *http.Client

	complaints *bytes.Buffer // of the process
}

// provider measures this repository's OpenID Provider, with its users in a file, beside oidc-provider of
// npm in memory: in turn, in one run.
func provider(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench provider", flag.ContinueOnError)
	rounds := flags.Int("rounds", 9, "rounds, of which the median is reported")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *rounds < 1 {
		return errors.New("-rounds must be 1 or more")
	}
	dir, err := os.MkdirTemp("", "caddy-jwt-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Fprintln(os.Stderr, "Building Caddy, installing oidc-provider, starting both ...")
	ctx, cancel := context.WithCancel(ctx)
	ours, wait, err := ourProvider(ctx, dir)
	defer wait()
	defer cancel()
	if err != nil {
		return err
	}
	theirs, waitTheirs, err := npmProvider(ctx, dir)
	defer waitTheirs()
	defer cancel()
	if err != nil {
		return err
	}
	if err := measureProviders(os.Stdout, *rounds, ours, theirs); err != nil {
		return fmt.Errorf("%w\n%s", err, theirs.complaints)
	}
	return nil
}

// measured are the results of one kind of request at one provider.
type measured struct{ rates, cpu []float64 }

func measureProviders(out io.Writer, rounds int, providers ...*providerUnderTest) error {
	kinds := []struct {
		name string
		run  func(p *providerUnderTest) (float64, float64, error)
	}{
		{"client credentials", (*providerUnderTest).credentials},
		{"code exchange", (*providerUnderTest).exchange},
		{"refresh", (*providerUnderTest).refresh},
	}
	results := make(map[string]*measured)
	for range rounds {
		for _, kind := range kinds {
			for _, p := range providers {
				rate, cpu, err := kind.run(p)
				if err != nil {
					return fmt.Errorf("%s: %s: %w", p.name, kind.name, err)
				}
				key := p.name + kind.name
				if results[key] == nil {
					results[key] = new(measured)
				}
				results[key].rates = append(results[key].rates, rate)
				results[key].cpu = append(results[key].cpu, cpu)
			}
		}
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "\t%s\t%s\ttimes as many\n", providers[0].name, providers[1].name)
	for _, kind := range kinds {
		ours, theirs := results[providers[0].name+kind.name], results[providers[1].name+kind.name]
		ratio, low, high := median(ratios(ours.rates, theirs.rates))
		fmt.Fprintf(table, "%s\t%s /s, %s µs of CPU\t%s /s, %s µs of CPU\t%.1f (%.1f to %.1f)\n", kind.name,
			digits(medianOf(ours.rates)), digits(medianOf(ours.cpu)),
			digits(medianOf(theirs.rates)), digits(medianOf(theirs.cpu)), ratio, low, high)
	}
	return table.Flush()
}

// ask sends a form to the token endpoint, and returns the answer.
func (p *providerUnderTest) ask(form url.Values) (tokens struct {
	RefreshToken string `json:"refresh_token"`
}, err error) {
	request, err := http.NewRequest(http.MethodPost, p.token, strings.NewReader(form.Encode()))
	if err != nil {
		return tokens, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.SetBasicAuth("app", providerSecret)
	response, err := p.client.Do(request)
	if err != nil {
		return tokens, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %.200s", response.StatusCode, text)
	}
	return tokens, errors.Join(err, json.Unmarshal(text, &tokens))
}

// each calls do for each of n, on several connections. It returns the calls per second, and the
// processor time of one in µs.
func (p *providerUnderTest) each(n int, do func(i int) error) (rate, cpu float64, err error) {
	before, err := cpuTime(p.process.Process.Pid)
	if err != nil {
		return 0, 0, err
	}
	errs := make([]error, providerWorkers)
	var next atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for worker := range providerWorkers {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && errs[worker] == nil; i = int(next.Add(1)) - 1 {
				errs[worker] = do(i)
			}
		})
	}
	all.Wait()
	elapsed := time.Since(began)
	after, cpuErr := cpuTime(p.process.Process.Pid)
	return float64(n) / elapsed.Seconds(), float64((after - before).Microseconds()) / float64(n),
		errors.Join(append(errs, cpuErr)...)
}

func (p *providerUnderTest) credentials() (rate, cpu float64, err error) {
	return p.each(5*providerBatch, func(int) error {
		_, err := p.ask(url.Values{"grant_type": {"client_credentials"}})
		return err
	})
}

// exchangeAll exchanges new codes, and returns the refresh tokens.
func (p *providerUnderTest) exchangeAll() (refresh []string, rate, cpu float64, err error) {
	codes, err := p.codes(providerBatch)
	if err != nil {
		return nil, 0, 0, err
	}
	refresh = make([]string, len(codes))
	rate, cpu, err = p.each(len(codes), func(i int) error {
		tokens, err := p.ask(url.Values{
			"grant_type": {"authorization_code"}, "code": {codes[i]}, "redirect_uri": {providerReturn},
		})
		refresh[i] = tokens.RefreshToken
		return err
	})
	return refresh, rate, cpu, err
}

func (p *providerUnderTest) exchange() (rate, cpu float64, err error) {
	_, rate, cpu, err = p.exchangeAll()
	return rate, cpu, err
}

func (p *providerUnderTest) refresh() (rate, cpu float64, err error) {
	tokens, _, _, err := p.exchangeAll()
	if err != nil {
		return 0, 0, err
	}
	return p.each(len(tokens), func(i int) error {
		_, err := p.ask(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {tokens[i]}})
		return err
	})
}

func benchClient() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 2 * providerWorkers},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// ourProvider runs Caddy with the provider, and a user who is logged in.
func ourProvider(ctx context.Context, dir string) (p *providerUnderTest, wait func(), err error) {
	caddy, err := buildCaddy(ctx, dir)
	if err != nil {
		return nil, func() {}, err
	}
	s := &server{
		command: []string{caddy, "run", "--adapter", "caddyfile", "--config"},
		config: func(port string) string {
			return fmt.Sprintf("{\nadmin off\nauto_https off\npersist_config off\nstorage file_system %s\n}\n"+
				"http://127.0.0.1:%s {\noidc_provider {\nissuer http://127.0.0.1:%[2]s\naccounts {\nsignup open\n"+
				"store file %s\nthrottle off\n}\nclient app {\nsecret %s\nredirect_uri %s\nconsent never\n"+
				"grant_types authorization_code refresh_token client_credentials\n}\n}\n}\n",
				filepath.Join(dir, "storage"), port, filepath.Join(dir, "users.db"), providerSecret, providerReturn)
		},
	}
	if err := s.start(ctx, dir); err != nil {
		return nil, func() {}, err
	}
	at := "http://" + s.address
	p = &providerUnderTest{name: "caddy-jwt", token: at + "/oidc/token", process: s.process, client: benchClient()}
	user := benchClient()
	if user.Jar, err = cookiejar.New(nil); err != nil {
		return nil, s.wait, err
	}
	form := url.Values{"email": {"alice@example.com"}, "password": {scalePassword}}
	response, err := user.PostForm(at+"/auth/signup", form)
	if err != nil {
		return nil, s.wait, err
	}
	response.Body.Close()
	question := at + "/oidc/authorize?" + url.Values{
		"client_id": {"app"}, "redirect_uri": {providerReturn}, "response_type": {"code"},
		"scope": {"openid offline_access"}, "prompt": {"none"},
	}.Encode()
	p.codes = func(count int) (codes []string, err error) {
		for range count {
			response, err := user.Get(question)
			if err != nil {
				return nil, err
			}
			response.Body.Close()
			to, err := response.Location()
			if err != nil || to.Query().Get("code") == "" {
				return nil, fmt.Errorf("no code: status %d, %v", response.StatusCode, to)
			}
			codes = append(codes, to.Query().Get("code"))
		}
		return codes, nil
	}
	return p, s.wait, nil
}

// npmProvider installs and runs oidc-provider.
func npmProvider(ctx context.Context, dir string) (p *providerUnderTest, wait func(), err error) {
	const packages = "oidc/provider/testdata/clients"
	folder := filepath.Join(dir, "npm")
	if err := os.Mkdir(folder, 0o755); err != nil {
		return nil, func() {}, err
	}
	for _, file := range []string{
		packages + "/package.json", packages + "/package-lock.json", "bench/testdata/oidc-provider.mjs",
	} {
		text, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, filepath.Base(file)), text, 0o600)
		}
		if err != nil {
			return nil, func() {}, err
		}
	}
	install := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	install.Dir = folder
	if output, err := install.CombinedOutput(); err != nil {
		return nil, func() {}, fmt.Errorf("npm ci: %w\n%s", err, output)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0") // finds a free port
	if err != nil {
		return nil, func() {}, err
	}
	address := listener.Addr().String()
	listener.Close()
	_, port, _ := strings.Cut(address, ":")
	command := exec.CommandContext(ctx, "node", "oidc-provider.mjs", port, providerSecret, providerReturn)
	command.Dir = folder
	var complaints bytes.Buffer
	command.Stderr = &complaints
	stdin, err := command.StdinPipe()
	if err != nil {
		return nil, func() {}, err
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		return nil, func() {}, err
	}
	if err := command.Start(); err != nil {
		return nil, func() {}, err
	}
	lines := bufio.NewReader(stdout)
	if line, err := lines.ReadString('\n'); err != nil || line != "ready\n" {
		return nil, func() { _ = command.Wait() }, fmt.Errorf("oidc-provider: %s", complaints.String())
	}
	p = &providerUnderTest{
		name: "oidc-provider", token: "http://" + address + "/token", process: command, client: benchClient(),
		complaints: &complaints,
		codes: func(count int) ([]string, error) {
			if _, err := fmt.Fprintln(stdin, count); err != nil {
				return nil, err
			}
			for {
				line, err := lines.ReadString('\n')
				if codes, ours := strings.CutPrefix(line, "codes "); ours || err != nil {
					return strings.Fields(codes), err
				}
			}
		},
	}
	return p, func() { _ = command.Wait() }, nil
}
