"""The paper's tables and its open questions: arms → runs (resumable) → result files → report."""
