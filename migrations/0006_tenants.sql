DROP INDEX `conversations_session_key_unique`;--> statement-breakpoint
ALTER TABLE `conversations` ADD `tenant` text DEFAULT 'default' NOT NULL;--> statement-breakpoint
CREATE UNIQUE INDEX `conversations_session` ON `conversations` (`tenant`,`session_key`);--> statement-breakpoint
ALTER TABLE `agent_runs` ADD `tenant` text DEFAULT 'default' NOT NULL;--> statement-breakpoint
CREATE INDEX `agent_runs_tenant` ON `agent_runs` (`tenant`,`id`);--> statement-breakpoint
ALTER TABLE `trajectories` ADD `tenant` text DEFAULT 'default' NOT NULL;--> statement-breakpoint
CREATE INDEX `trajectories_tenant` ON `trajectories` (`tenant`,`created_at`,`id`) WHERE "source" = 'live';