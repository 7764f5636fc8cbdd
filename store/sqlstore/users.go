package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/store"
)

const userColumns = `id, email, email_key, password_hash, roles, profile, disabled, email_verified,
	created_at, updated_at, version`

type versionedUser struct {
	store.User
	version int64
}

func scanUser(row interface{ Scan(...any) error }) (u versionedUser, err error) {
	var roles, profile string
	var created, updated int64
	if err := row.Scan(
		&u.ID, &u.Email, &u.EmailKey, &u.PasswordHash, &roles, &profile, &u.Disabled, &u.EmailVerified,
		&created, &updated, &u.version,
	); err != nil {
		return u, err
	}
	u.CreatedAt, u.UpdatedAt = fromMilliseconds(created), fromMilliseconds(updated)
	if err := json.Unmarshal([]byte(roles), &u.Roles); err != nil {
		return u, fmt.Errorf("the roles of user %s are corrupt", u.ID)
	}
	claims, err := jwt.ParseClaims([]byte(profile)) // keeps every digit of a whole number
	if err != nil && profile != "null" {
		return u, fmt.Errorf("the profile of user %s is corrupt", u.ID)
	}
	if claims != nil {
		u.Profile = store.PlainValue(claims).(map[string]any)
	}
	return u, nil
}

func userValues(u store.User) (roles, profile string, err error) {
	rolesText, err := json.Marshal(u.Roles)
	if err != nil {
		return "", "", err
	}
	profileText, err := json.Marshal(u.Profile)
	if err == nil && store.OutOfRange(u.Profile) {
		err = errors.New("the profile contains a number that is out of range")
	}
	return string(rolesText), string(profileText), err
}

// CreateUser implements UserStore.
func (s *Store) CreateUser(ctx context.Context, u store.User) error {
	roles, profile, err := userValues(u)
	if err != nil {
		return err
	}
	added, err := s.Exec(ctx, `INSERT INTO users (`+userColumns+
		`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 1) ON CONFLICT (email_key) DO NOTHING`,
		u.ID, u.Email, u.EmailKey, u.PasswordHash, roles, profile,
		u.Disabled, u.EmailVerified, milliseconds(u.CreatedAt), milliseconds(u.UpdatedAt))
	if err == nil && added == 0 {
		return store.ErrEmailTaken
	}
	return err
}

// canBeThere reports whether a text can be in every database: client data need not be
// UTF-8, and PostgreSQL does not support NUL.
func canBeThere(text string) bool {
	return utf8.ValidString(text) && !strings.Contains(text, "\x00")
}

func (s *Store) user(ctx context.Context, where string, value string) (versionedUser, error) {
	if !canBeThere(value) {
		return versionedUser{}, store.ErrNotFound
	}
	return one(query(ctx, s, scanUser, `SELECT `+userColumns+` FROM users WHERE `+where+` = $1`, value))
}

// User implements UserStore.
func (s *Store) User(ctx context.Context, id string) (store.User, error) {
	u, err := s.user(ctx, "id", id)
	return u.User, err
}

// UserByEmail implements UserStore.
func (s *Store) UserByEmail(ctx context.Context, emailKey string) (store.User, error) {
	u, err := s.user(ctx, "email_key", emailKey)
	return u.User, err
}

// UpdateUser implements UserStore.
func (s *Store) UpdateUser(
	ctx context.Context, id string, now time.Time, change func(*store.User) error,
) (store.User, error) {
	for {
		u, err := s.user(ctx, "id", id)
		if err != nil {
			return store.User{}, err
		}
		changed := u.User
		if err := change(&changed); err != nil {
			return store.User{}, err
		}
		changed.ID, changed.CreatedAt, changed.UpdatedAt = u.ID, u.CreatedAt, now
		if changed.EmailKey != u.EmailKey {
			if other, err := s.user(ctx, "email_key", changed.EmailKey); err == nil && other.ID != id {
				return store.User{}, store.ErrEmailTaken
			}
		}
		roles, profile, err := userValues(changed)
		if err != nil {
			return store.User{}, err
		}
		if changed.PasswordHash != u.PasswordHash || changed.Disabled && !u.Disabled {
			if _, err := s.Exec(ctx, `DELETE FROM one_time_tokens WHERE user_id = $1`, id); err != nil {
				return store.User{}, err
			}
		}
		updated, err := s.Exec(
			ctx,
			`UPDATE users SET email = $1, email_key = $2, password_hash = $3, roles = $4, profile = $5,
			disabled = $6, email_verified = $7, updated_at = $8, version = version + 1
			WHERE id = $9 AND version = $10`,
			changed.Email, changed.EmailKey, changed.PasswordHash, roles,
			profile, changed.Disabled, changed.EmailVerified, milliseconds(now), id, u.version,
		)
		if err != nil {
			return store.User{}, err
		}
		if updated == 1 {
			return changed, nil
		}
	}
}

// DeleteUser implements UserStore.
func (s *Store) DeleteUser(ctx context.Context, id string, now time.Time) error {
	if !canBeThere(id) {
		return store.ErrNotFound
	}
	var ended []store.Revocation
	err := s.transaction(ctx, func(tx *sql.Tx) (err error) {
		// so that no session starts in the meantime
		if err := tx.QueryRowContext(ctx, `SELECT id FROM users WHERE id = $1`+s.ForUpdate, id).Scan(&id); err != nil {
			return err
		}
		if ended, err = endSessions(ctx, tx, id, "", "", now); err != nil {
			return err
		}
		for _, r := range ended {
			if _, err := tx.ExecContext(ctx, `DELETE FROM records WHERE owner = $1`, r.SessionID); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM records WHERE owner = $1`, id); err != nil {
			return err
		}
		if err := revokeKeys(ctx, tx, id, now); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM users WHERE id = $1`, id)
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return store.ErrNotFound
	}
	if err == nil && len(ended) > 0 && s.Revoked != nil {
		s.Revoked(ctx)
	}
	return err
}

// Users implements UserStore.
func (s *Store) Users(ctx context.Context, afterEmailKey string, limit int) ([]store.User, error) {
	found, err := query(
		ctx, s, scanUser, `SELECT `+userColumns+` FROM users WHERE email_key > $1 ORDER BY email_key LIMIT $2`,
		afterEmailKey, limit,
	)
	users := make([]store.User, len(found))
	for i := range found {
		users[i] = found[i].User
	}
	return users, err
}
