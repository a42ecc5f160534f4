package pipeline

import (
	"sync"
	"time"
)

// stage guards the current Stage.
type stage struct {
	mu  sync.Mutex
	now Stage
}

// Stage is what is being done now.
func (p *Progress) Stage() Stage {
	p.stage.mu.Lock()
	defer p.stage.mu.Unlock()
	return p.stage.now
}

// enter begins a stage; set changes the figures.
func (p *Progress) enter(name string, set func(*Stage)) {
	p.stage.mu.Lock()
	defer p.stage.mu.Unlock()
	p.stage.now.Name, p.stage.now.Begun = name, time.Now()
	if set != nil {
		set(&p.stage.now)
	}
}
