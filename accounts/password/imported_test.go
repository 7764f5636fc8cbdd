package password

import (
	"strings"
	"testing"
	"time"
)

// importedHashes are hashes by their origin. Those of "lètmein" are by the original programs
// (PHP's password_hash, Python's crypt, hashlib in the form of the system, openssl passwd) or in
// their documents and tests (Django, passlib, the SHA-crypt specification).
var importedHashes = map[string]struct{ hash, password string }{
	"PHP argon2i": {
		"$argon2i$v=19$m=1024,t=2,p=1$SU0uQUpYWHE5ZkgwbDJ1dA$wWZHwB3r0clAmZt4IDcgQEddW/4DKQU97bP4MTLVQ/0", "lètmein",
	},
	"PHP argon2id": {
		"$argon2id$v=19$m=1024,t=2,p=1$ck9qVS9tR2VxNi56Qmd0WQ$umvQgSi+h6jBPf+P66D7ST1aWIbmJaV/h6jiYSjRxYI", "lètmein",
	},
	"Django argon2": {
		"argon2$argon2id$v=19$m=1024,t=2,p=1$ck9qVS9tR2VxNi56Qmd0WQ$umvQgSi+h6jBPf+P66D7ST1aWIbmJaV/h6jiYSjRxYI",
		"lètmein",
	},
	"Spring argon2": {
		"{argon2@SpringSecurity_v5_8}" +
			"$argon2id$v=19$m=1024,t=2,p=1$ck9qVS9tR2VxNi56Qmd0WQ$umvQgSi+h6jBPf+P66D7ST1aWIbmJaV/h6jiYSjRxYI", "lètmein",
	},
	"Django bcrypt of SHA-256": {
		"bcrypt_sha256$$2y$04$jAMenv5nBCBMF1KQ31gQaOCrOTUkwh3OZ3rUpGClzaAwp2BTgpDkO", "lètmein",
	},
	"Spring bcrypt": {"{bcrypt}$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"},
	"Django bcrypt": {"bcrypt$$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"},
	"LDAP bcrypt":   {"{CRYPT}$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"},
	"Django pbkdf2": {"pbkdf2_sha256$1000000$seasalt$r1uLUxoxpP2Ued/qxvmje7UH9PUJBkRrvf9gGPL7Cps=", "lètmein"},
	"Django SHA-1":  {"pbkdf2_sha1$1000$seasalt$ljleU4wBmTtz/MoG5YTwxpM0d7I=", "lètmein"},
	"passlib pbkdf2": {
		"$pbkdf2-sha256$6400$.6UI/S.nXIk8jcbdHx3Fhg$98jZicV16ODfEsEZeYPGHU3kbrUrvUEXOPimVSQDD44", "password",
	},
	"passlib SHA-1": {"$pbkdf2$1000$MDEyMzQ1Njc4OWFiY2RlZg$fAVyzQNNkMB93BxqSKITIbIy1MI", "lètmein"},
	"passlib SHA-512": {
		"$pbkdf2-sha512$1000$MDEyMzQ1Njc4OWFiY2RlZg$" +
			"ybJHpGrJWhs4LImjx0GRtSdR5xilwB3BnBveZB7Hc.0a5LUJEHbU53wtKP1vGk3Cf3S9Qk64owinPovOEXjxSw", "lètmein",
	},
	"Werkzeug pbkdf2": {
		"pbkdf2:sha256:1000$seasalt$26066bc977b619af32b20e976f390ba537723d0ac7aac8a76cbf419e78605f80", "lètmein",
	},
	"Werkzeug scrypt": {
		"scrypt:16384:8:1$seasalt$423dfef4f3f246348921e6c79c6f354cc8ecaad6881b13501bf68407f35869f4" +
			"c9eed89b81f633ef59b495d4044a45c546475508186163c9b1eeb4308ad7bf3f", "lètmein",
	},
	"PHC pbkdf2": {
		"$pbkdf2-sha256$i=1000,l=32$MDEyMzQ1Njc4OWFiY2RlZg$2uZ5cBoC3j36rh3cB10ArEcvcDFo2DQUlVXwPM2ShVk", "lètmein",
	},
	"passlib scrypt": {
		"$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E", "password",
	},
	"Django scrypt": {
		"scrypt$16384$seasalt$8$5$ECMIUp+LMxMSK8xB/IVyba+KYGTI7FTnet025q/1f/vBAVnnP3hdYqJuRi+mJn6ji6ze3Fbb7JEFPKGpuEf5vw==",
		"lètmein",
	},
	"sha512crypt": {
		"$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
		"Hello world!",
	},
	"sha512crypt, rounds": {
		"$6$rounds=10000$saltstringsaltst$" +
			"OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.", "Hello world!",
	},
	"sha512crypt, long": {
		"$6$abc$9bIqFS3gcEah7ONB5aYjFczb7Fkaut01.W86FsbxH3PnKOS.T6QNYs7qzjm/MziNMzBBXqOaoSNUc4PtFnUj0.",
		strings.Repeat("x", 200),
	},
	"sha256crypt": {"$5$saltstring$VmYDfPvtBTeZMHMcc.g0h.YHgvhAjIQqGuyh0xpHtk0", "lètmein"},
	"htpasswd":    {"$apr1$seasalt1$oBA6LCO8BnKPQOsbJpxn11", "lètmein"},
	"htpasswd, long": {
		"$apr1$seasalt1$mY1dqpC/6/SIAbPO/i55N.", strings.Repeat("x", 100),
	},
	"htpasswd, short": {"$apr1$seasalt1$ullTXA/u.Qhy4z1Ug6Qvj0", "a"},
	"htpasswd -s":     {"{SHA}bROMo65UVjGzq9caTwds51nFcAs=", "lètmein"},
}

// A hash of another system matches its password, and nothing beside it.
func TestImportedHashes(t *testing.T) {
	for name, of := range importedHashes {
		kept, weak, err := Import(of.hash, true)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !Weak(kept) {
			t.Errorf("%s would not be hashed anew", name)
		}
		if weak != strings.HasPrefix(name, "htpasswd") {
			t.Errorf("%s: weak is %t", name, weak)
		}
		if again, _, err := Import(kept, true); err != nil || again != kept {
			t.Errorf("%s: what is exported is imported as %q, %v", name, again, err)
		}
		for typed, want := range map[string]bool{
			of.password: true, of.password + "x": false, of.password[1:]: false, "x" + of.password: false,
			of.password + "\x00": false, of.hash: false, "": false,
		} {
			if right, err := Check(t.Context(), Turn{Queue: 1}, kept, typed); err != nil || right != want {
				t.Errorf("%s: %q matches: %t, %v", name, typed, right, err)
			}
		}
		if _, _, err := Import(of.hash, false); (err != nil) != weak {
			t.Errorf("%s from another file than htpasswd: %v", name, err)
		}
	}
}

// A hash that cannot be checked, or could stall the server, is refused with the limit.
func TestImportRefuses(t *testing.T) {
	key := strings.Repeat("A", 43)
	for hash, want := range map[string]string{
		"secret":         "unknown kind; supported: argon2id, argon2i, bcrypt",
		"rqXexS6ZhobKA":  "unknown kind",
		"$1$abc$xyz":     "unknown kind",
		"{SSHA}abcdefgh": "unknown kind",
		"$argon2d$v=19$m=1024,t=1,p=1$AAAAAAAAAAA$" + key:                "unknown kind",
		"$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW":   "a faulty bcrypt",
		"$2b$15$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW":   "above 14",
		"bcrypt_sha256$$2b$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQ": "corrupt, or its cost is above 14",
		"$argon2id$v=16$m=1024,t=1,p=1$AAAAAAAAAAA$" + key:               "must look like $argon2id$v=19$",
		"$argon2i$m=1024,t=1,p=1$AAAAAAAAAAA$" + key:                     "must look like $argon2i$v=19$",
		"$argon2i$v=19$m=262145,t=1,p=1$AAAAAAAAAAA$" + key:              "outside m=8 to 262144, t=1 to 10, p=1 to 16",
		"$argon2i$v=19$m=4294967297,t=1,p=1$AAAAAAAAAAA$" + key:          "outside m=8",
		"$argon2id$v=19$m=1024,t=11,p=1$AAAAAAAAAAA$" + key:              "t=1 to 10",
		"$argon2id$v=19$m=1024,t=1,p=17$AAAAAAAAAAA$" + key:              "p=1 to 16",
		"$argon2id$v=19$m=1024,t=1,p=0$AAAAAAAAAAA$" + key:               "p=1 to 16",
		"$argon2id$v=19$m=1024,t=1,p=1$AAAAAAAAAAA$AAAA":                 "corrupt",
		"$argon2id$v=19$m=1024,t=1,p=1,keyid=AA$AAAAAAAAAAA$" + key:      "corrupt",
		"pbkdf2_sha256$2000001$salt$" + key + "=":                        "outside 1 to 2000000 iterations",
		"pbkdf2_sha256$0$salt$" + key + "=":                              "outside 1 to 2000000",
		"pbkdf2_sha256$-5$salt$" + key + "=":                             "outside 1 to 2000000",
		"$pbkdf2-sha256$2000000$AAAA$" + strings.Repeat("A", 86):         "outside 1 to 1000000",
		"$pbkdf2-sha512$9999999999$AAAA$" + key:                          "outside 1 to 2000000",
		"$pbkdf2-sha256$99999999999999999999$AAAA$" + key:                "corrupt",
		"$pbkdf2-sha256$1000$AAAA$" + strings.Repeat("A", 400):           "corrupt",
		"$scrypt$ln=18,r=9,p=1$AAAA$" + key:                              "outside 128·N·r·p = 256 MiB",
		"$scrypt$ln=99,r=8,p=1$AAAA$" + key:                              "outside 128·N·r·p",
		"$scrypt$ln=0,r=8,p=1$AAAA$" + key:                               "outside 128·N·r·p",
		"$scrypt$ln=14,r=0,p=1$AAAA$" + key:                              "outside 128·N·r·p",
		"$scrypt$ln=14,r=8,p=17$AAAA$" + key:                             "outside 128·N·r·p",
		"scrypt$16385$salt$8$1$" + key:                                   "N is a power of two",
		"scrypt$4611686018427387904$salt$8$1$" + key:                     "outside 128·N·r·p",
		"pbkdf2:sha256:2000001$salt$" + strings.Repeat("0", 64):          "outside 1 to 2000000",
		"scrypt:1048576:8:1$salt$" + strings.Repeat("0", 64):             "outside 128·N·r·p",
		"scrypt:16384$salt$" + strings.Repeat("0", 64):                   "the Werkzeug hash is corrupt",
		"pbkdf2:md5:1000$salt$" + strings.Repeat("0", 64):                "the Werkzeug hash is corrupt",
		"$6$rounds=1000001$salt$" + strings.Repeat("A", 86):              "outside rounds=1000 to 1000000",
		"$6$rounds=999$salt$" + strings.Repeat("A", 86):                  "outside rounds=1000",
		"$6$salt$" + key:       "the $6$ hash is corrupt",
		"$5$salt$" + key + "A": "the $5$ hash is corrupt",
		"$apr1$seasalt1$short": "the $apr1$ hash is corrupt",
		"{SHA}AAAA":            "the {SHA} hash is corrupt",
	} {
		if _, _, err := Import(hash, true); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, expected %q", hash, err, want)
		}
		if right, err := Check(t.Context(), Turn{Queue: 1}, hash, "secret"); right || err != nil {
			t.Errorf("%s matches: %t, %v", hash, right, err)
		}
	}
}

// What the limits allow takes a few seconds at most, whatever is typed.
func BenchmarkImportedAtTheLimit(b *testing.B) {
	key := strings.Repeat("A", 43)
	for name, hash := range map[string]string{
		"bcrypt":      "$2b$14$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
		"argon2id":    "$argon2id$v=19$m=262144,t=10,p=1$AAAAAAAAAAA$" + key,
		"pbkdf2":      "pbkdf2_sha256$2000000$salt$" + key + "=",
		"pbkdf2 512":  "$pbkdf2-sha512$2000000$AAAA$" + key,
		"scrypt":      "$scrypt$ln=18,r=8,p=1$AAAA$" + key,
		"sha512crypt": "$6$rounds=1000000$salt$" + strings.Repeat("A", 86),
		"sha256crypt": "$5$rounds=1000000$salt$" + key,
		"apr1":        "$apr1$seasalt1$oBA6LCO8BnKPQOsbJpxn11",
	} {
		for _, length := range []int{12, MaxBytes} {
			matches, err := readHash(hash)
			if err != nil {
				b.Fatal(name, err)
			}
			b.Run(name, func(b *testing.B) {
				for b.Loop() {
					matches([]byte(strings.Repeat("x", length)))
				}
				b.ReportMetric(float64(time.Duration(b.Elapsed().Nanoseconds()/int64(b.N)).Milliseconds()), "ms/check")
			})
		}
	}
}

// Whatever stands in a file, it is refused or kept in a form that is imported again as it is.
func FuzzImport(f *testing.F) {
	for _, of := range importedHashes {
		f.Add(of.hash)
	}
	f.Add("{bcrypt}{CRYPT}bcrypt$argon2$$2b$")
	f.Fuzz(func(t *testing.T, hash string) {
		kept, weak, err := Import(hash, true)
		if err != nil {
			return
		}
		if again, weakAgain, err := Import(kept, true); err != nil || again != kept || weakAgain != weak {
			t.Errorf("%q is kept as %q, then as %q, %v", hash, kept, again, err)
		}
		if !Weak(kept) && !strings.HasPrefix(kept, "$argon2id$") {
			t.Errorf("%q would never be hashed anew", kept)
		}
	})
}
