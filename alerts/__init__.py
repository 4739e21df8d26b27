"""Rules over logs, and what is told when they hold.

rules.py, rule_files.py   what people write: YAML or JSON, checked strictly
evaluate.py               pure: logs into buckets of event time, ticks, decisions (firing, resolved)
notify.py, breaker.py     pure: grouping, repeats, silences, inhibition, circuit breaker
engine.py                 pure: both together, as one state that is saved whole
state.py, outbox.py       the database: state, decisions and outbox in one transaction
role.py, delivery.py      the shell: one leader reads the broker, decides, sends
channels/                 one file for each way out
api.py                    rules, silences, breakers over HTTP
"""
