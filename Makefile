# ema: "make demo" shows it, "make test" proves it. Needs Go and Node.js; nothing else.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
# The race detector needs a C compiler; where there is none, the tests run without it.
RACE    := $(shell command -v $${CC:-cc} >/dev/null 2>&1 && echo -race)

.PHONY: build assets types web-modules demo test causes fuzz lint vulnerabilities bench clean

build: assets ## bin/ema and bin/demohub
	go build -ldflags "-X main.version=$(VERSION)" -o bin/ ./cmd/ema ./cmd/demohub

# The pages of the API's document are npm packages, fetched at build time and embedded.
PAGES := internal/api/pages
assets: $(PAGES)/dist/redoc.js ## what the binary embeds and the repository does not have

$(PAGES)/dist/redoc.js: $(PAGES)/package.json $(PAGES)/package-lock.json $(PAGES)/build.js
	cd $(PAGES) && npm ci --no-progress && npm run --silent build
	@touch $@

# What makes and checks the TypeScript types of the API are npm packages too.
WEB := web
web-modules: $(WEB)/node_modules/.package-lock.json

$(WEB)/node_modules/.package-lock.json: $(WEB)/package.json $(WEB)/package-lock.json
	cd $(WEB) && npm ci --no-progress --no-audit --no-fund
	@touch $@

types: web-modules ## web/src/api.d.ts and the tables of docs/api.md, from the operations of the API
	go test -count=1 ./internal/api -run Comments -update
	go test -count=1 ./internal/api -run 'TypeScript|Documentation' -update

demo: build ## a sample hub, a pull that is interrupted, the pull that goes on
	./demo/demo.sh

test: assets web-modules ## every test there is
	go test $(RACE) -timeout 25m ./...
	$(MAKE) --no-print-directory causes

causes: assets ## what is slowed on purpose is named as the cause; it needs a machine that does nothing else
	EMA_TEST_CAUSES=1 go test -count=1 -timeout 10m ./cmd/ema -run NamedFirst

FUZZTIME ?= 30s
fuzz: assets ## every fuzz target for FUZZTIME, one after the other
	./.ci/fuzz $(FUZZTIME)

lint: assets ## vet, gofumpt, staticcheck
	go vet ./...
	@unformatted=$$(go run mvdan.cc/gofumpt@v0.12.0 -l . | grep -v node_modules); \
	if [ -n "$$unformatted" ]; then echo "gofumpt would change:"; echo "$$unformatted"; exit 1; fi
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...

vulnerabilities: assets ## govulncheck, where its database can be reached
	./.ci/vulnerabilities

bench: build ## the first benchmark; bench/README.md has them all
	go run ./bench/peers -case A -runs 5

clean:
	rm -rf bin $(PAGES)/node_modules $(WEB)/node_modules
	find $(PAGES)/dist -type f ! -name .keep -delete
