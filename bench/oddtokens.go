package main

import (
	"crypto"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
)

// printOddTokens prints which tokens each library refuses, because a library that checks less
// needs less time. Each of these tokens is signed with the right key.
func printOddTokens(keys []*issuerKey) error {
	var key *issuerKey
	for _, k := range keys {
		if k.algorithm == jwa.EdDSA { // all libraries support it
			key = k
		}
	}
	fmt.Print("\n| a token that is signed by the right key")
	var verify []verifyToken
	for _, l := range libraries {
		v, err := l.make(key, issuer, audience)
		if err != nil {
			return err
		}
		if l.name != cachedName { // it refuses the same as without a cache
			verify = append(verify, v)
			fmt.Print(" | ", l.name)
		}
	}
	fmt.Println(" |\n| ---" + strings.Repeat(" | ---", len(verify)) + " |")
	odd, err := oddTokens(key)
	if err != nil {
		return err
	}
	for _, o := range odd {
		fmt.Print("| ", o.what)
		for _, v := range verify {
			if v(o.token) != nil {
				fmt.Print(" | refused")
			} else {
				fmt.Print(" | accepted")
			}
		}
		fmt.Println(" |")
	}
	return nil
}

type oddToken struct{ what, token string }

func oddTokens(key *issuerKey) ([]oddToken, error) {
	const header = `{"alg":"EdDSA","typ":"JWT"}`
	hour := time.Now().Add(time.Hour).Unix()
	claims := func(more string) string {
		return fmt.Sprintf(
			`{"iss":%q,"aud":%q%s}`, issuer, audience, strings.ReplaceAll(more, "HOUR", fmt.Sprint(hour)),
		)
	}
	var odd []oddToken
	for _, o := range []struct{ what, header, claims string }{
		{"without exp", header, claims(`,"sub":"a"`)},
		{"nbf is in an hour", header, claims(`,"sub":"a","exp":HOUR,"nbf":HOUR`)},
		{"iat is in an hour", header, claims(`,"sub":"a","exp":HOUR,"iat":HOUR`)},
		{"sub is there twice", header, claims(`,"sub":"a","sub":"b","exp":HOUR`)},
		{"without sub", header, claims(`,"exp":HOUR`)},
		{"EXP beside exp", header, claims(`,"sub":"a","exp":HOUR,"EXP":1`)},
		{"not UTF-8", header, claims(",\"sub\":\"a\xff\",\"exp\":HOUR")},
		{"bytes after the claims", header, claims(`,"sub":"a","exp":HOUR`) + "x"},
		{"alg is there twice", `{"alg":"none","alg":"EdDSA"}`, claims(`,"sub":"a","exp":HOUR`)},
		{"an unknown crit", `{"alg":"EdDSA","crit":["x"],"x":1}`, claims(`,"sub":"a","exp":HOUR`)},
		{"typ is logout+jwt", `{"alg":"EdDSA","typ":"logout+jwt"}`, claims(`,"sub":"a","exp":HOUR`)},
	} {
		input := base64.RawURLEncoding.EncodeToString([]byte(o.header)) + "." +
			base64.RawURLEncoding.EncodeToString([]byte(o.claims))
		signature, err := key.private.(crypto.Signer).Sign(rand.Reader, []byte(input), crypto.Hash(0))
		if err != nil {
			return nil, err
		}
		odd = append(odd, oddToken{o.what, input + "." + base64.RawURLEncoding.EncodeToString(signature)})
	}
	return odd, nil
}
