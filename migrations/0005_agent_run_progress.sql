ALTER TABLE `agent_runs` ADD `conversation_id` text;--> statement-breakpoint
ALTER TABLE `agent_runs` ADD `leaf_step_id` text;--> statement-breakpoint
ALTER TABLE `agent_runs` ADD `waits_until` integer;--> statement-breakpoint
ALTER TABLE `agent_runs` ADD `progress` text;