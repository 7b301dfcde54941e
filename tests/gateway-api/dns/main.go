// The stand-in for CoreDNS with the suite's Corefile: the zone foo.bar.com tells who asks ("whoami"), and there is nobody
// to forward other questions to, so that they are refused.
package main

import (
	"log"
	"net"
	"strings"

	"github.com/miekg/dns"
)

func main() {
	dns.HandleFunc(".", answer)
	log.Fatal((&dns.Server{Addr: ":53", Net: "udp"}).ListenAndServe())
}

func answer(w dns.ResponseWriter, question *dns.Msg) {
	reply := new(dns.Msg)
	name := ""
	if len(question.Question) > 0 {
		name = question.Question[0].Name
	}
	log.Printf("%s asks for %s", w.RemoteAddr(), name)
	if !dns.IsSubDomain("foo.bar.com.", strings.ToLower(name)) {
		reply.SetRcode(question, dns.RcodeRefused)
	} else {
		reply.SetReply(question)
		host, _, _ := net.SplitHostPort(w.RemoteAddr().String())
		header := dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET}
		reply.Extra = append(reply.Extra, &dns.A{Hdr: header, A: net.ParseIP(host)})
	}
	if err := w.WriteMsg(reply); err != nil {
		log.Print(err)
	}
}
