# ema: "make demo" shows it, "make test" proves it. Needs Go and Node.js; nothing else.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
# The race detector needs a C compiler; where there is none, the tests run without it.
RACE    := $(shell command -v $${CC:-cc} >/dev/null 2>&1 && echo -race)

.PHONY: build assets demo test fuzz lint vulnerabilities bench clean

build: assets ## bin/ema and bin/demohub
	go build -ldflags "-X main.version=$(VERSION)" -o bin/ ./cmd/ema ./cmd/demohub

# The pages of the API's document are npm packages, fetched at build time and embedded.
PAGES := internal/api/pages
assets: $(PAGES)/dist/redoc.js ## what the binary embeds and the repository does not have

$(PAGES)/dist/redoc.js: $(PAGES)/package.json $(PAGES)/package-lock.json $(PAGES)/build.js
	cd $(PAGES) && npm ci --no-progress && npm run --silent build
	@touch $@

demo: build ## a sample hub, a pull that is interrupted, the pull that goes on
	./demo/demo.sh

test: assets ## every test there is
	go test $(RACE) -timeout 25m ./...

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
	rm -rf bin $(PAGES)/node_modules
	find $(PAGES)/dist -type f ! -name .keep -delete
