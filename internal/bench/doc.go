// Package bench measures ema through its public doors, so that its figures are the ones that users get.
package bench
