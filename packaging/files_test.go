package packaging_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"go.yaml.in/yaml/v3"
)

// mustAdapt adapts a Caddyfile without an error or a warning, and returns the JSON.
func mustAdapt(t *testing.T, name, text string) []byte {
	t.Helper()
	adapted, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": name})
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%s: %v %v", name, err, warnings)
	}
	return adapted
}

func read(t *testing.T, path string, into any) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil && into != nil {
		err = yaml.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return string(text)
}

// The services of the Compose file have what the Caddyfile beside it asks for.
func TestCompose(t *testing.T) {
	var compose struct {
		Services map[string]struct {
			Environment map[string]string
			Volumes     []string
			Build       string
		}
		Volumes map[string]any
	}
	read(t, "packaging/compose/compose.yaml", &compose)
	caddy := compose.Services["caddy"]
	if _, err := os.Stat(filepath.Join("packaging/compose", caddy.Build, "Dockerfile")); err != nil {
		t.Error(err)
	}
	for _, service := range compose.Services {
		for _, volume := range service.Volumes {
			name, _, _ := strings.Cut(volume, ":")
			if _, known := compose.Volumes[name]; !known && !strings.HasPrefix(name, "./") {
				t.Errorf("the volume %s is not declared", name)
			}
		}
	}
	t.Setenv("SITE", "example.com")
	text := read(t, "packaging/compose/Caddyfile", nil)
	adapted := string(mustAdapt(t, "Caddyfile", text))
	if !strings.Contains(adapted, `"module":"postgres"`) || caddy.Environment["DATABASE"] == "" {
		t.Errorf("the config: %s", adapted)
	}
	upstream := regexp.MustCompile(`reverse_proxy (\w+):`).FindStringSubmatch(text)
	if _, known := compose.Services[upstream[1]]; !known {
		t.Errorf("there is no service %s", upstream[1])
	}
}

// The config of the chart is valid, and the values that the templates use are there.
func TestHelmValues(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", sitetest.TempDir(t))
	var values map[string]any
	read(t, "packaging/helm/values.yaml", &values)
	adapted := mustAdapt(t, "Caddyfile", values["caddyfile"].(string))
	if err := sitetest.Validate(t, adapted); err != nil {
		t.Error(err)
	}
	templates := read(t, "packaging/helm/templates/all.yaml", nil)
	used := regexp.MustCompile(`\.Values\.([\w.]+)`).FindAllStringSubmatch(templates, -1)
	if len(used) < 10 {
		t.Fatalf("the templates use %d values", len(used))
	}
	for _, value := range used {
		at := any(values)
		for name := range strings.SplitSeq(value[1], ".") {
			folder, _ := at.(map[string]any)
			found, known := folder[name]
			if at = found; !known {
				t.Errorf("values.yaml has no %s", value[1])
			}
		}
	}
	if helm, err := exec.LookPath("helm"); err == nil {
		if printed, err := exec.Command(helm, "lint", "--strict", "packaging/helm").CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, printed)
		}
	}
}

// The workflows are YAML, and what they run is there.
func TestWorkflows(t *testing.T) {
	files, err := filepath.Glob(".github/workflows/*.yml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		var workflow struct {
			Jobs map[string]struct {
				Steps []struct{ Run string }
			}
		}
		read(t, file, &workflow)
		for name, job := range workflow.Jobs {
			if len(job.Steps) < 2 {
				t.Errorf("%s: %s has %d steps", file, name, len(job.Steps))
			}
			for _, step := range job.Steps {
				for _, script := range regexp.MustCompile(`(?:packaging|\.ci)/\w+`).FindAllString(step.Run, -1) {
					if info, err := os.Stat(script); err != nil || info.Mode()&0o100 == 0 {
						t.Errorf("%s runs %s: %v", file, script, err)
					}
				}
			}
		}
	}
}

// The notes of a release are its section of the changelog.
func TestChangelog(t *testing.T) {
	notes, err := exec.Command("packaging/changelog", "0.1.0").CombinedOutput()
	if err != nil || !strings.Contains(string(notes), "The directive `jwt`") || strings.Contains(string(notes), "## [") {
		t.Errorf("0.1.0: %v\n%s", err, notes)
	}
	if notes, err := exec.Command("packaging/changelog", "0.0.1").CombinedOutput(); err == nil {
		t.Errorf("a version that does not exist: %s", notes)
	}
}

// systemd accepts the unit.
func TestUnit(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		caddytest.Missing(t, "systemd-analyze")
	}
	unit := strings.ReplaceAll(read(t, "packaging/systemd/caddy.service", nil), "/usr/bin/caddy", "/bin/true")
	file := filepath.Join(sitetest.TempDir(t), "caddy.service")
	if err := os.WriteFile(file, []byte(unit), 0o600); err != nil {
		t.Fatal(err)
	}
	printed, err := exec.Command("systemd-analyze", "verify", "--man=no", file).CombinedOutput()
	if err != nil || strings.Contains(string(printed), "caddy.service:") {
		t.Errorf("%v\n%s", err, printed)
	}
}
