CREATE TABLE `response_items` (
	`response_id` text NOT NULL,
	`output` integer NOT NULL,
	`position` integer NOT NULL,
	`id` text NOT NULL,
	`item` text NOT NULL,
	PRIMARY KEY(`response_id`, `output`, `position`),
	FOREIGN KEY (`response_id`) REFERENCES `responses`(`id`) ON UPDATE no action ON DELETE cascade
);
--> statement-breakpoint
CREATE INDEX `response_items_id` ON `response_items` (`id`);--> statement-breakpoint
CREATE TABLE `responses` (
	`id` text PRIMARY KEY NOT NULL,
	`tenant` text NOT NULL,
	`status` text NOT NULL,
	`policy_version` integer NOT NULL,
	`settings` text NOT NULL,
	`previous_id` text,
	`conversation_id` text,
	`session_id` text,
	`trajectory_id` text,
	`usage` text,
	`error` text,
	`incomplete_reason` text,
	`created_at` integer NOT NULL,
	`completed_at` integer,
	`deleted_at` integer
);
--> statement-breakpoint
CREATE INDEX `responses_previous` ON `responses` (`previous_id`) WHERE "previous_id" IS NOT NULL;--> statement-breakpoint
CREATE INDEX `responses_conversation` ON `responses` (`conversation_id`,`id`) WHERE "conversation_id" IS NOT NULL;--> statement-breakpoint
CREATE INDEX `responses_unfinished` ON `responses` (`id`) WHERE "status" = 'in_progress';