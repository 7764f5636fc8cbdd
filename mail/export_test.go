package mail

import "context"

// SetMaxWaiting sets how many mails may wait, until the returned function is called.
func SetMaxWaiting(number int64) (reset func()) {
	before := maxWaiting
	maxWaiting = number
	return func() { maxWaiting = before }
}

// SendDue sends the mails that are due, as a round of Run does.
func (o *Outbox) SendDue(ctx context.Context) { o.sendDue(ctx) }
