package mail

// SetMaxWaiting sets how many mails may wait, until the returned function is called.
func SetMaxWaiting(number int64) (reset func()) {
	before := maxWaiting
	maxWaiting = number
	return func() { maxWaiting = before }
}
