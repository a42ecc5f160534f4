// Package trust decides who asks, what that permits, and keeps a daemon safe from strangers, web pages and floods.
//
// A Guard stands before every handler; behind it a handler says which role it needs with Permit. Listen and
// HTTPServer make the door itself.
package trust
