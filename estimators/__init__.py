"""Attribution estimators: functions of (model, loss, arrays). They know neither zoo nor heldout."""
