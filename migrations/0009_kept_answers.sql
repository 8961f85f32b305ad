CREATE TABLE `kept_answers` (
	`tenant` text NOT NULL,
	`key` text NOT NULL,
	`digest` text NOT NULL,
	`headers` text NOT NULL,
	`body` blob NOT NULL,
	`bytes` integer NOT NULL,
	`created_at` integer NOT NULL,
	PRIMARY KEY(`tenant`, `key`)
);
--> statement-breakpoint
CREATE INDEX `kept_answers_age` ON `kept_answers` (`tenant`,`created_at`,`bytes`);--> statement-breakpoint
CREATE TABLE `offered_tools` (
	`digest` text PRIMARY KEY NOT NULL,
	`tools` text NOT NULL
);
--> statement-breakpoint
ALTER TABLE `trajectories` ADD `offered_tools` text;--> statement-breakpoint
ALTER TABLE `trajectories` ADD `metadata` text;