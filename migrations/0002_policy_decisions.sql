CREATE TABLE `policy_decisions` (
	`id` text PRIMARY KEY NOT NULL,
	`kind` text NOT NULL,
	`version` integer NOT NULL,
	`other_version` integer,
	`cause` text NOT NULL,
	`reason` text NOT NULL,
	`figures` text NOT NULL,
	`training_run_id` text,
	`created_at` integer NOT NULL,
	FOREIGN KEY (`version`) REFERENCES `policies`(`version`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE INDEX `policy_decisions_version` ON `policy_decisions` (`version`,`id`);--> statement-breakpoint
CREATE INDEX `policy_decisions_run` ON `policy_decisions` (`training_run_id`,`id`);--> statement-breakpoint
ALTER TABLE `policies` ADD `removed_at` integer;--> statement-breakpoint
CREATE UNIQUE INDEX `policies_one_canary` ON `policies` (`status`) WHERE "status" = 'canary';--> statement-breakpoint
ALTER TABLE `training_runs` ADD `request` text;--> statement-breakpoint
ALTER TABLE `training_runs` ADD `attempts` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `trajectories` ADD `training_step` integer;--> statement-breakpoint
CREATE INDEX `trajectories_live` ON `trajectories` (`policy_version`,`id`) WHERE "source" = 'live';--> statement-breakpoint
CREATE INDEX `trajectories_branched` ON `trajectories` (`branched_from_step_id`) WHERE "branched_from_step_id" IS NOT NULL;--> statement-breakpoint
CREATE INDEX `feedback_step` ON `feedback` (`step_id`) WHERE "step_id" IS NOT NULL;