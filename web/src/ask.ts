// Asks the daemon, with the compiler knowing what may be asked and what is answered: api.d.ts is made from its document.
import type { components, paths } from './api';

type Schemas = components['schemas'];
export type Download = Schemas['Download'];
export type Problem = Schemas['Problem'];

// The answer that says yes.
type Yes<O> = O extends { responses: { 200: { content: { 'application/json': infer A } } } } ? A : never;

const manage = '/api/v1/models/download/manage' satisfies keyof paths;
const active = '/api/v1/models/download/active' satisfies keyof paths;

export type Manage = paths[typeof manage]['post']['requestBody']['content']['application/json'];
export type Managed = Yes<paths[typeof manage]['post']>;
export type Active = Yes<paths[typeof active]['get']>;

// A Refusal is an answer that says no.
export class Refusal extends Error {
  constructor(readonly status: number, readonly problem: Problem) {
    super(problem.message);
  }
}

async function ask<A>(path: keyof paths, init?: RequestInit): Promise<A> {
  const answer = await fetch(path, init);
  if (!answer.ok) {
    const said: Schemas['Envelope'] = await answer.json();
    throw new Refusal(answer.status, said.error);
  }
  return answer.json();
}

export const change = (what: Manage): Promise<Managed> =>
  ask(manage, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(what) });

export const downloads = async (): Promise<Download[]> => (await ask<Active>(active)).active_downloads;

// What the types are worth: each of the lines below a comment is a mistake, and the compiler fails if it is none.
export function mistakes(d: Download, p: Problem): unknown[] {
  // @ts-expect-error there is no such action
  const action: Manage = { action: 'stop' };
  // @ts-expect-error the action is missing
  const missing: Manage = { model_id: d.model_id };
  // @ts-expect-error nothing is called so
  const field = d.progress;
  // @ts-expect-error it is null while it is unknown
  const eta: number = d.eta_seconds;
  // @ts-expect-error there is no such status
  const stopped = d.status === 'STOPPED';
  // @ts-expect-error it is absent unless the code is WRONG_STATE
  const allowed: string[] = p.details.allowed_actions;
  return [action, missing, field, eta, stopped, allowed];
}
