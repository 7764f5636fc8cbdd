package password

import (
	"bytes"
	"crypto/md5"

	cryptbase64 "github.com/go-crypt/x/base64"
)

// apr1Order is the order in which crypt writes the bytes of an MD5 sum.
var apr1Order = [md5.Size]byte{12, 6, 0, 13, 7, 1, 14, 8, 2, 15, 9, 3, 5, 10, 4, 11}

// apr1 returns the key of $apr1$, as crypt writes it. The algorithm is in apr_md5.c of the Apache
// Portable Runtime; package crypt has it with the prefix $1$ only.
func apr1(password, salt []byte) []byte {
	repeated := bytes.Repeat(sumMD5(password, salt, password), len(password)/md5.Size+1)
	parts := [][]byte{password, []byte(apr1Prefix), salt, repeated[:len(password)]}
	for i := len(password); i > 0; i >>= 1 {
		if i&1 == 1 {
			parts = append(parts, []byte{0})
		} else {
			parts = append(parts, password[:1])
		}
	}
	sum := sumMD5(parts...)
	for round := range 1000 {
		first, last := sum, password
		if round%2 == 1 {
			first, last = password, sum
		}
		parts = append(parts[:0], first)
		if round%3 != 0 {
			parts = append(parts, salt)
		}
		if round%7 != 0 {
			parts = append(parts, password)
		}
		sum = sumMD5(append(parts, last)...)
	}
	ordered := make([]byte, md5.Size)
	for i, from := range apr1Order {
		ordered[i] = sum[from]
	}
	return cryptbase64.EncodeCrypt(ordered)
}

func sumMD5(parts ...[]byte) []byte {
	sum := md5.New()
	for _, part := range parts {
		sum.Write(part)
	}
	return sum.Sum(nil)
}
