from __future__ import annotations


class Report:
    def __init__(self, graph, plan, options, engine):
        self.left = plan.left
        self.parts = plan.parts
