"""Service level objectives: specification, budgets, burn rates, alert policies, rules, back-test, report, release."""
