package packaging_test

import (
	"debug/elf"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// instruction is one of the Dockerfile, such as RUN and what it runs.
type instruction struct{ name, rest string }

func dockerfile(t *testing.T) (all []instruction) {
	t.Helper()
	text, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", " ")) {
		if name, rest, _ := strings.Cut(strings.TrimSpace(line), " "); name != "" && name[0] != '#' {
			all = append(all, instruction{name, strings.TrimSpace(rest)})
		}
	}
	return all
}

// buildContext copies what `COPY . .` copies: the files that .dockerignore does not exclude.
func buildContext(t *testing.T, to string) {
	t.Helper()
	text, err := os.ReadFile(".dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	patterns := strings.Fields(string(text))
	if patterns[0] != "*" {
		t.Fatal("the test expects a list of what is not ignored")
	}
	included := func(path string) bool {
		return slices.ContainsFunc(patterns[1:], func(pattern string) bool {
			if ending, anywhere := strings.CutPrefix(pattern, "!**/*"); anywhere {
				return strings.HasSuffix(path, ending)
			}
			return pattern == "!"+path
		})
	}
	err = filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !included(path) || strings.HasPrefix(path, ".git/") {
			return err
		}
		content, err := os.ReadFile(path)
		if err == nil {
			err = os.MkdirAll(filepath.Join(to, filepath.Dir(path)), 0o755)
		}
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, path), content, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The steps of the Dockerfile, one by one, as no Docker engine may run here; the CI workflow builds the image
// itself. The program then serves a site.
func TestDockerfile(t *testing.T) {
	if os.Getenv("CI") != "true" {
		t.Skip("compiles Caddy anew, for minutes; CI=true runs it")
	}
	work := sitetest.TempDir(t)
	source, out := filepath.Join(work, "src"), filepath.Join(work, "out")
	if err := os.Mkdir(source, 0o755); err != nil {
		t.Fatal(err)
	}
	inFolders := strings.NewReplacer("/src", source, "/out", out)
	settings := make(map[string]string)
	stages := 0
	for _, step := range dockerfile(t) {
		switch step.name {
		case "FROM":
			stages++
		case "COPY":
			if stages == 1 {
				buildContext(t, source) // go.mod and go.sum first are only for the cache of layers
			} else if step.rest != "--from=build --chown=65532:65532 /out/ /" {
				t.Fatalf("COPY %s", step.rest)
			}
		case "RUN":
			command := exec.CommandContext(t.Context(), "sh", "-ec", inFolders.Replace(step.rest))
			command.Dir, command.Env = source, append(os.Environ(), "VERSION=v1.2.3")
			if printed, err := command.CombinedOutput(); err != nil {
				t.Fatalf("RUN %s: %v\n%s", step.rest, err, printed)
			}
		case "ENV":
			for _, pair := range strings.Fields(step.rest) {
				name, value, _ := strings.Cut(pair, "=")
				settings[name] = value
			}
		case "ARG":
			settings[step.name] = step.rest
		case "WORKDIR", "VOLUME", "EXPOSE", "ENTRYPOINT", "CMD":
			settings[step.name] = step.rest
		default:
			t.Fatalf("the test does not know %s", step.name)
		}
	}
	if stages != 2 || settings["XDG_DATA_HOME"] != "/data" || settings["VOLUME"] != "/data /config" ||
		settings["ENTRYPOINT"] != `["/usr/bin/caddy"]` {
		t.Errorf("%d stages, %v", stages, settings)
	}
	for _, folder := range []string{"data", "config"} {
		if info, err := os.Stat(filepath.Join(out, folder)); err != nil || !info.IsDir() {
			t.Errorf("the image has no folder /%s: %v", folder, err)
		}
	}
	mustServe(t, out)
}

// mustServe fails the test unless the program of an image needs no library, and serves a site.
func mustServe(t *testing.T, root string) {
	t.Helper()
	program := filepath.Join(root, "usr", "bin", "caddy")
	binary, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	libraries, err := binary.ImportedLibraries()
	_ = binary.Close()
	if err != nil || len(libraries) > 0 {
		t.Errorf("the image has no libraries, and the program needs %v: %v", libraries, err)
	}
	environment := []string{
		"XDG_DATA_HOME=" + filepath.Join(root, "data"), "XDG_CONFIG_HOME=" + filepath.Join(root, "config"),
	}
	run := func(args ...string) *exec.Cmd {
		command := exec.Command(program, args...)
		command.Env = environment
		return command
	}
	printed, err := run("validate", "--config", filepath.Join(root, "etc", "caddy", "Caddyfile")).CombinedOutput()
	if err != nil {
		t.Errorf("the config of the image: %v\n%s", err, printed)
	}
	if printed, err = run("jwt", "version").Output(); err != nil || !strings.Contains(string(printed), "caddy-jwt v1.2.3") {
		t.Errorf("the version: %v, %s", err, printed)
	}
	address := sitetest.FreeAddress(t)
	config := filepath.Join(root, "Caddyfile")
	text := "{\n admin off\n}\nhttp://" + address + " {\n jwt {\n accounts\n}\n}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	caddy := run("run", "--config", config)
	if err := caddy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = caddy.Process.Kill()
		_ = caddy.Wait()
	})
	sitetest.Within(t, time.Minute, "the image serves the log-in page", func() bool {
		response, err := http.Get("http://" + address + "/auth/login")
		if err == nil {
			_ = response.Body.Close()
		}
		return err == nil && response.StatusCode == http.StatusOK
	})
}
